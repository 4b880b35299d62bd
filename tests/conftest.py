"""What all tests share."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# A busy machine is slow, not wrong. Each example writes its file of `tmp_path` anew.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("unhurried")

LAYOUT = {"train/good": 8, "test/good": 4, "test/lesion": 4}


def make_folder(root: Path, size: int = 64, layout: dict[str, int] | None = None) -> Path:
    """Write a folder of noisy grey PNGs; those in `test/lesion` have a bright square and a mask of it."""
    rng = np.random.default_rng(0)
    for folder, count in (layout or LAYOUT).items():
        for index in range(count):
            image = rng.integers(60, 120, (size, size), dtype=np.uint8)
            path = root / folder / f"{folder.replace('/', '_')}_{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder == "test/lesion":
                mask = np.zeros_like(image)
                mask[size // 4 : size // 2, size // 4 : size // 2] = 255
                image = np.maximum(image, mask)
                mask_path = root / "ground_truth" / "lesion" / path.name
                mask_path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(mask_path)
            Image.fromarray(image).save(path)
    return root


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test logged may hold file names that are no text: they could not be sent to the process that reports."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 64x64 images as `MedicalFolder` reads it; the name tests non-ASCII paths. Do not write to it."""
    return make_folder(tmp_path_factory.mktemp("data") / "Größe_脑")


@pytest.fixture(scope="session")
def bundles(tiny_folder, tmp_path_factory):
    """Checkpoints and bundles of all models, made when they are asked for. Do not write to them."""
    from tests.helpers.bundles import Bundles

    return Bundles(tiny_folder, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def scrd(tmp_path_factory):
    """An untrained Scrd with a threshold, and a bundle of it, made by hand in a second. Do not write to it."""
    from tests.helpers.edge_bundles import trained_model, write_bundle

    model = trained_model()
    return model, write_bundle(tmp_path_factory.mktemp("device") / "bundle", model, modality="CT")


@pytest.fixture(scope="session")
def every_kind_of_file(tmp_path_factory) -> Path:
    """Pictures of every format, at small models' own and at odd sizes. Do not write to it."""
    from tests.helpers.picture_files import write_every_kind

    return write_every_kind(tmp_path_factory.mktemp("files"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder for commands that run in this process."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
