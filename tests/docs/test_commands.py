"""What README and manual mark as runnable does run, page by page, in a folder as the pages assume it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical import Phantom
from anomalib_medical.callbacks.predictions_file import PartialFile, Prediction
from tests.helpers.dicom_files import write_dicom
from tests.helpers.few_shot_tree import make_normals, make_tasks
from tests.helpers.nifti_files import save_nifti
from tests.helpers.pages import PAGES, ROOT, blocks_of, name_of

RUNNABLE = [page for page in PAGES if blocks_of(page)]


def _phantom(target: Path, **counts: int) -> Path:
    counts = {"train_count": 24, "test_normal_count": 6, "test_abnormal_count": 6} | counts
    Phantom(root=target.parent / "generated", difficulty="easy", image_size=64, **counts).prepare_data()
    (made,) = (target.parent / "generated").iterdir()
    return made.rename(target)


@pytest.fixture(scope="session")
def working_folder(tmp_path_factory) -> Path:
    """The folders that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    images = _phantom(folder / "my_images")
    _phantom(folder / "pool", seed=1, test_normal_count=0, test_abnormal_count=0)
    shutil.copytree(folder / "pool/train/good", folder / "images_nobody_has_looked_at")
    for part in ("train/good", "test/good", "test/tumour"):
        for number, path in enumerate(sorted((images / part).glob("*.png"))[:12]):
            patient = path.stem.partition("_")[0]
            pixels = np.asarray(Image.open(path)).astype(np.uint16)
            write_dicom(folder / "my_dicom" / part / f"{patient}_{number}", pixels, PatientID=patient)
        volumes = folder / "my_volumes" / part
        volumes.mkdir(parents=True)
        for number in range(4 if part == "train/good" else 2):
            voxels = np.stack([pixels.astype(np.int16) + number] * 8, axis=-1)
            save_nifti(volumes / f"volume_{part.replace('/', '_')}_{number}.nii", voxels)
            if part == "test/tumour":
                mask = folder / "my_volumes/ground_truth/tumour"
                mask.mkdir(parents=True, exist_ok=True)
                save_nifti(mask / f"volume_{part.replace('/', '_')}_{number}.nii", (voxels > 90).astype(np.uint8))
    shutil.copytree(images / "test", folder / "new_images")
    shutil.copytree(folder / "my_dicom/test/good", folder / "new_images/dicom")
    make_tasks(folder / "tasks")
    (folder / "tasks/brain").rename(folder / "tasks/kidney")
    (folder / "tasks/lung").rename(folder / "tasks/liver")
    shutil.copytree(images, folder / "knees")
    shutil.copytree(ROOT / "configs", folder / "configs")
    files = [path.relative_to(images) for path in sorted(images.rglob("*.png")) if "ground_truth" not in path.parts]
    rows = [
        f"{file},{'none' if file.parent.name == 'good' else 'tumour'},{file.stem.partition('_')[0]}" for file in files
    ]
    (folder / "knees/labels.csv").write_text("\n".join(["file,finding,patient", *rows]))
    make_normals(folder / "new_organ/support", 4)
    make_normals(folder / "new_organ/normals", 20, first_seed=300)
    make_normals(folder / "new_organ/images", 2, first_seed=200)
    return folder


@pytest.fixture
def page_folder(working_folder, tmp_path) -> Path:
    return Path(shutil.copytree(working_folder, tmp_path / "page", dirs_exist_ok=True))


def _run(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


# What people type first, on every change.
EVERY_DAY = {"README.md", "CONTRIBUTING.md"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[] if page.name in EVERY_DAY else [pytest.mark.nightly]) for page in RUNNABLE],
    ids=name_of,
)
def test_marked_blocks_run(page, page_folder):
    if name_of(page) == "docs/reference/files.md":  # reads what a run left
        scores = PartialFile(page_folder / "predictions.csv")
        scores.write([Prediction("a.png", "1.5", "0.7", "abnormal", "1.2", "normal")])
        scores.close()
        run = page_folder / "results/Scrd/my_images/latest"
        run.mkdir(parents=True)
        (page_folder / "predictions.csv").rename(run / "predictions.csv")
    if page.name == "CONTRIBUTING.md":  # changes the package
        shutil.copytree(ROOT / "anomalib_medical", page_folder / "anomalib_medical")
    for language, text, file in blocks_of(page):
        if file:
            (page_folder / file).write_text(text)
            continue
        result = _run(language, text, page_folder)
        assert result.returncode == 0, f"{text}\n{result.stdout[-1500:]}\n{result.stderr[-3000:]}"


def test_the_marks_are_on_what_people_type_first():
    assert {"README.md", "docs/how_to/your_data.md", "docs/how_to/few_shot.md"} <= {name_of(page) for page in RUNNABLE}


def test_a_block_that_fails_is_found(tmp_path):
    assert _run("bash", "false | true", tmp_path).returncode != 0
    assert _run("python", "raise SystemExit(3)", tmp_path).returncode == 3
