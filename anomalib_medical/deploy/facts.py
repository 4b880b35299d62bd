"""What a bundle has to know of a trained model beside its graph."""

from anomalib.models.components import AnomalibModule
from torchvision.transforms.v2 import Compose, Resize


def image_size_of(model: AnomalibModule) -> tuple[int, int] | None:
    """Height and width that the model's pre-processor resizes to; None if it does not."""
    transform = getattr(model.pre_processor, "transform", None)
    parts = transform.transforms if isinstance(transform, Compose) else [transform]
    for part in parts:
        if isinstance(part, Resize) and part.size is not None and len(part.size) == 2:
            return int(part.size[0]), int(part.size[1])
    return None
