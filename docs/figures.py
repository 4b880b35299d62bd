"""Makes the manual's pictures from the quickstart's run: `make figures`.

Of each kind of image the one with the median score is shown, so that nobody chose it by its looks.
"""

import argparse
import io
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from anomalib_medical.callbacks.predictions_file import Prediction, read_predictions
from anomalib_medical.data.images import read_image
from anomalib_medical.edge.predictor import GraphScorer

KINDS = ("tumour", "ring", "good")
COLOURS = 256  # of the picture, which is half the size for it


def median_of(kind: str, predictions: list[Prediction]) -> Prediction:
    """The prediction with the median score among those of images of a kind."""
    found = sorted((each for each in predictions if Path(each.path).parent.name == kind), key=lambda p: float(p.score))
    return found[len(found) // 2]


def mask_of(path: Path) -> np.ndarray | None:
    """Where the lesion is, (H, W), if there is one."""
    mask = path.parents[2] / "ground_truth" / "/".join(path.parts[-2:])
    return np.asarray(Image.open(mask)) > 0 if mask.exists() else None


def main() -> None:
    """Draw the cases side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("results/quickstart"), help="what the quickstart wrote")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    arguments = parser.parse_args()
    finished = json.loads((arguments.run / "quickstart.json").read_text())
    predictions = read_predictions(arguments.run / finished["predictions"])
    scorer = GraphScorer(arguments.run / finished["model"])
    mpl.use("agg")
    figure, axes = plt.subplots(1, 2 * len(KINDS), figsize=(9.6, 2.1), layout="constrained")
    for kind, (left, right) in zip(KINDS, axes.reshape(-1, 2), strict=True):
        case = median_of(kind, predictions)
        image = read_image(case.path).numpy()
        _, anomaly_map = scorer.score(image)
        for axis in (left, right):
            axis.imshow(image[0], cmap="gray")
            axis.axis("off")
        # 0.5 is the threshold of pixels.
        right.imshow(np.squeeze(anomaly_map), cmap="jet", alpha=0.5, vmin=0, vmax=1)
        if (mask := mask_of(Path(case.path))) is not None:
            left.contour(mask, levels=[0.5], colors="yellow", linewidths=0.8)
        left.set_title("normal" if kind == "good" else kind, fontsize=9)
        right.set_title(f"score {float(case.score):.2f}: {case.label}", fontsize=9)
    arguments.output.mkdir(exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        arguments.output / "heatmaps.png", optimize=True
    )


if __name__ == "__main__":
    main()
