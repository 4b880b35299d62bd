import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_medical.models.components import GaussianBlur


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (16, 16), (5, 9)])
def test_blur_equals_scipy_of_one_image(size):
    maps = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(0))
    blurred = GaussianBlur(sigma=4.0)(maps)
    expected = np.stack([gaussian_filter(image[0].numpy(), sigma=4) for image in maps])
    np.testing.assert_allclose(blurred[:, 0], expected, atol=1e-6)


def test_an_images_blur_does_not_depend_on_its_batch():
    maps = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    blur = GaussianBlur(sigma=4.0)
    torch.testing.assert_close(blur(maps)[3:4], blur(maps[3:4]), rtol=0, atol=1e-6)
