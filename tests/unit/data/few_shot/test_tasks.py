"""Few-shot tasks: who supports whom, and that the target stays unseen."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from anomalib_medical.data import FewShotTasks, MedicalFolder
from anomalib_medical.data.few_shot.episodes import EpisodeSampler
from anomalib_medical.data.few_shot.support import draw_support
from tests.helpers.dicom_files import write_dicom

SIZES = {"brain": (16, 16), "lung": (24, 20), "skin": (12, 18)}


def put(path: Path, size: tuple[int, int], colours: int = 1, value: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(path.name)) % 2**32)
    pixels = (
        rng.integers(0, 255, (*size, colours), np.uint8) if value is None else np.full((*size, colours), value, "u1")
    )
    Image.fromarray(pixels.squeeze()).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three tasks of other sizes, one in colour, each with 8 patients of 2 normal images."""
    for task, size in SIZES.items():
        colours = 3 if task == "skin" else 1
        for patient in range(8):
            for image in range(2):
                put(tmp_path / task / "train" / "good" / f"p{patient}_{image}.png", size, colours)
        for kind in ("good", "bad"):
            for image in range(3):
                put(tmp_path / task / "test" / kind / f"t{image}.png", size, colours)
    return tmp_path


PATTERNS = dict.fromkeys(SIZES, r"(p\d|t\d)")


def ready(root: Path, target: str = "skin", **kwargs) -> FewShotTasks:
    datamodule = FewShotTasks(
        target, root, **{"shots": 3, "num_workers": 0, "train_batch_size": 4, "image_size": 8, **kwargs}
    )
    datamodule.setup()
    return datamodule


def test_the_target_is_left_out_of_training(root: Path) -> None:
    datamodule = ready(root)
    assert set(datamodule.train_data.samples.task) == set(datamodule.val_data.samples.task) == {"brain", "lung"}
    assert set(datamodule.test_data.samples.task) == {"skin"}
    assert len(datamodule.test_data) == 6
    assert datamodule.name == "FewShotTasks_skin"


def test_batches_hold_queries_and_their_supports(root: Path) -> None:
    datamodule = ready(root)
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        batch = next(iter(loader))
        assert batch.support.shape == (batch.batch_size, 3, 3, 8, 8)
        assert batch.image.shape == (batch.batch_size, 3, 8, 8)
        assert set(batch.task) <= {"brain", "lung"}


def test_batches_say_which_support_images_are_the_same(root: Path) -> None:
    datamodule = ready(root, shots=5, train_batch_size=20)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.support_index.shape == batch.support.shape[:2]
    flat, index = batch.support.flatten(0, 1).flatten(1), batch.support_index.flatten()
    assert len(index.unique()) < len(index)
    for first in range(len(index)):
        for second in range(first):
            assert torch.equal(flat[first], flat[second]) == bool(index[first] == index[second])


def episodes(sampler: EpisodeSampler, epoch: int = 0) -> list:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_supports_are_distinct_others_of_the_same_task_and_other_patients(root: Path) -> None:
    datamodule = ready(root, patient_patterns=PATTERNS)
    for data in (datamodule.train_data, datamodule.val_data):
        sampler = EpisodeSampler(data, 3, 0, shuffle=True)
        for episode in (each for epoch in range(5) for each in episodes(sampler, epoch)):
            query, support = data.samples.iloc[episode.query], data.pool.iloc[list(episode.support)]
            assert len(set(support.image_path)) == 3
            assert set(support.task) == {query.task}
            assert query.patient_id not in set(support.patient_id)
            assert not set(support.image_path) & set(datamodule.val_data.samples.image_path)


def test_the_patient_may_support_where_nobody_else_is_left(tmp_path: Path) -> None:
    for task in ("a", "b"):
        for patient in range(3):
            for image in range(2):
                put(tmp_path / task / "train" / "good" / f"p{patient}_{image}.png", (8, 8))
    data = ready(tmp_path, "b", patient_patterns={"a": r"(p\d)"}).train_data
    for episode in EpisodeSampler(data, 3, 0, shuffle=True):
        assert data.samples.image_path.iloc[episode.query] not in set(data.pool.image_path.iloc[list(episode.support)])


def test_episodes_change_with_epoch_and_seed_and_nothing_else(root: Path) -> None:
    data = ready(root).train_data
    sampler = EpisodeSampler(data, 3, 0, shuffle=True)
    assert episodes(sampler, 0) == episodes(sampler, 0)
    assert episodes(sampler, 0) != episodes(sampler, 1)
    assert episodes(sampler, 0) != episodes(EpisodeSampler(data, 3, 1, shuffle=True), 0)
    assert {each.query for each in sampler} == set(range(len(data)))
    fixed = EpisodeSampler(data, 3, 0, shuffle=False)
    assert episodes(fixed, 0) == episodes(fixed, 1)


class Recorder(LightningModule):
    """Keeps the supports of each epoch's batches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[torch.Tensor]] = {}

    def training_step(self, batch, _) -> None:
        self.seen.setdefault(self.current_epoch, []).append(batch.support)

    def configure_optimizers(self) -> None:
        return None


def test_lightning_draws_anew_in_every_epoch(root: Path, tmp_path: Path) -> None:
    model = Recorder()
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, limit_val_batches=0, **settings).fit(
        model, datamodule=FewShotTasks("skin", root, shots=2, num_workers=0, image_size=8)
    )
    first, second = (torch.cat(model.seen[epoch]).sum((1, 2, 3, 4)).sort().values for epoch in (0, 1))
    assert first.shape == second.shape
    assert not torch.allclose(first, second)


def test_the_targets_support(root: Path) -> None:
    datamodule = ready(root, target_shots=5, patient_patterns=PATTERNS)
    support = datamodule.support_data.samples
    assert set(support.task) == {"skin"}
    assert support.patient_id.nunique() == 5
    assert {Path(path).parent.parent.name for path in support.image_path} == {"train"}
    assert {image.shape for image in datamodule.target_support().images} == {(3, 12, 18)}
    again = ready(root, target_shots=5, patient_patterns=PATTERNS).support_data.samples
    assert list(again.image_path) == list(support.image_path)
    other = ready(root, target_shots=5, support_seed=1, patient_patterns=PATTERNS).support_data.samples
    assert set(other.image_path) != set(support.image_path)


def test_drawing_does_not_depend_on_the_order_of_files(root: Path) -> None:
    normals = ready(root).train_data.samples
    shuffled = normals.sample(frac=1, random_state=3)
    assert set(draw_support(normals, 4, 0).image_path) == set(draw_support(shuffled, 4, 0).image_path)


def test_a_support_folder_comes_first(root: Path) -> None:
    for index in range(2):
        put(root / "skin" / "support" / f"s{index}.png", (10 + index, 10))
    datamodule = ready(root)
    assert [Path(path).name for path in datamodule.support_data.samples.image_path] == ["s0.png", "s1.png"]
    assert [image.shape for image in datamodule.target_support().images] == [(3, 10, 10), (3, 11, 10)]


def test_a_new_target_needs_a_support_and_no_training_images(root: Path) -> None:
    for index in range(2):
        put(root / "liver" / "support" / f"s{index}.png", (10, 10))
        put(root / "liver" / "test" / "bad" / f"t{index}.png", (10, 10))
    datamodule = ready(root, "liver")
    assert set(datamodule.train_data.samples.task) == set(SIZES)
    assert [Path(path).name for path in datamodule.support_data.samples.image_path] == ["s0.png", "s1.png"]
    assert len(datamodule.test_data) == 2
    assert set(datamodule.test_data.samples.label_index) == {1}
    # As another task's target it is none: there is nothing to learn from it.
    assert set(ready(root).train_data.samples.task) == set(SIZES) - {"skin"}


def test_a_new_target_with_an_empty_support_is_refused(root: Path) -> None:
    (root / "liver" / "support").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"The task liver has 0 normal images, expected at least 1 for the support in"):
        ready(root, "liver")


def test_the_support_can_be_chosen_from_the_pool(root: Path) -> None:
    datamodule = ready(root, target_shots=2, patient_patterns=PATTERNS)
    pool: list[torch.Tensor] = []

    def choose(images, count: int) -> list[int]:
        pool[:] = images
        return [len(pool) - 2, 1][:count]

    chosen = datamodule.target_support(choose)
    assert len(pool) == 8
    assert sorted(image.sum() for image in chosen.images) == sorted(pool[row].sum() for row in (6, 1))
    assert set(chosen.names) == {Path(path).name for path in datamodule.support_data.samples.image_path}
    assert datamodule.support_data.samples.patient_id.nunique() == 2
    # With fewer patients than support images, images of one patient have to do.
    ready(root, target_shots=9, patient_patterns=PATTERNS).target_support(lambda images, _: list(range(len([*images]))))


def test_a_support_folder_is_not_chosen_from(root: Path) -> None:
    for index in range(2):
        put(root / "skin" / "support" / f"s{index}.png", (10, 10))
    datamodule = ready(root)
    assert len(datamodule.target_support(lambda *_: [0]).images) == 2


def test_a_list_of_datamodules(root: Path) -> None:
    tasks = [MedicalFolder(root / task) for task in SIZES]
    datamodule = FewShotTasks("brain", tasks=tasks, shots=2, num_workers=0)
    datamodule.prepare_data()
    datamodule.setup()
    assert set(datamodule.train_data.samples.task) == {"lung", "skin"}


def test_datamodules_by_name(root: Path) -> None:
    tasks = {name.upper(): MedicalFolder(root / name) for name in SIZES}
    datamodule = FewShotTasks("BRAIN", tasks=tasks, shots=2, num_workers=0)
    datamodule.prepare_data()
    datamodule.setup()
    assert set(datamodule.train_data.samples.task) == {"LUNG", "SKIN"}
    assert datamodule.support_patients <= set(tasks["BRAIN"].train_data.samples.patient_id)


def test_the_models_resize_reaches_queries_and_supports(root: Path) -> None:
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Resize

    datamodule = FewShotTasks("skin", root, shots=2, num_workers=0)
    model = SimpleNamespace(pre_processor=PreProcessor(Resize((32, 32), antialias=False)))
    datamodule.trainer = SimpleNamespace(model=model, lightning_module=model, callbacks=[])
    datamodule.setup()
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.image.shape[-2:] == batch.support.shape[-2:] == (32, 32)


def test_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no task 'liver' to test on, found: brain, lung, skin\. Expected"):
        ready(root, "liver")
    with pytest.raises(ValueError, match=r"The task brain has 16 normal images, expected at least 17"):
        ready(root, shots=16)
    with pytest.raises(ValueError, match=r"The task skin has 16 normal images, expected at least 17 for its support"):
        ready(root, target_shots=17)
    with pytest.raises(ValueError, match="shots is 0, expected at least 1"):
        ready(root, shots=0)
    with pytest.raises(ValueError, match="unreleased"):
        ready(root, protocol="published")
    with pytest.raises(ValueError, match="needs either root"):
        FewShotTasks("a")
    with pytest.raises(ValueError, match="patient_patterns names liver"):
        ready(root, patient_patterns={"liver": "x"})
    with pytest.raises(ValueError, match="different names"):
        FewShotTasks("brain", tasks=[MedicalFolder(root / "brain")] * 2).setup()
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        ready(tmp_path / "absent")


def test_one_task_and_an_empty_task(tmp_path: Path) -> None:
    put(tmp_path / "a" / "train" / "good" / "x.png", (8, 8))
    with pytest.raises(ValueError, match="Leaving a out leaves no task to train on: found only a"):
        ready(tmp_path, "a")
    (tmp_path / "b" / "train" / "good").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=re.escape(f"No normal images in {tmp_path / 'b' / 'train' / 'good'}")):
        ready(tmp_path, "a")


def test_a_support_image_in_the_test_is_refused(root: Path) -> None:
    (root / "skin" / "support").mkdir()
    (root / "skin" / "support" / "s.png").symlink_to(root / "skin" / "test" / "good" / "t0.png")
    with pytest.raises(ValueError, match=r"1 support image of skin is in the test too, or .*s\.png"):
        ready(root)


def test_a_support_of_a_tested_patient_is_refused(root: Path) -> None:
    put(root / "skin" / "support" / "t0_other.png", (8, 8))
    assert len(ready(root).support_data) == 1
    with pytest.raises(ValueError, match="or of a patient of the test"):
        ready(root, patient_patterns=PATTERNS)


def test_tested_patients_are_not_drawn_for_the_support(root: Path) -> None:
    for index in range(4):
        put(root / "skin" / "test" / "good" / f"p{index}_9.png", (8, 8))
    datamodule = ready(root, target_shots=4, patient_patterns=PATTERNS)
    assert set(datamodule.support_data.samples.patient_id) == {f"skin/p{index}" for index in range(4, 8)}


def test_a_volume_as_support(root: Path) -> None:
    (root / "skin" / "support").mkdir()
    voxels = np.random.default_rng(0).integers(0, 99, (6, 5, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / "skin" / "support" / "v.nii")
    assert [image.shape for image in ready(root).target_support().images] == [(3, 5, 6)] * 3


def test_tasks_are_read_with_one_window(root: Path) -> None:
    tasks = [MedicalFolder(root / task, window="bone") for task in SIZES]
    with pytest.raises(ValueError, match="The task brain has the window"):
        FewShotTasks("skin", tasks=tasks).setup()
    FewShotTasks("skin", tasks=tasks, window="bone").setup()


def test_an_empty_support_folder_is_refused(root: Path) -> None:
    (root / "skin" / "support").mkdir()
    with pytest.raises(ValueError, match=r"The task skin has 0 normal images, expected at least 1 for the support in"):
        ready(root)


def test_what_the_tasks_folders_hold_beside_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(root / "lung" / "train" / "good" / "x.gif", SIZES["lung"])
    put(root / "brain" / "support" / "a.png", SIZES["brain"])
    put(root / "brain" / "support" / "b.gif", SIZES["brain"])
    datamodule = FewShotTasks(target="brain", root=root, num_workers=0)
    for _ in range(2):
        caplog.clear()
        datamodule._setup()
        assert sorted(path.name for path in datamodule.left_out.unread[".gif"]) == ["b.gif", "x.gif"]
    assert caplog.text.count("Left out 1 file that is no PNG") == 2


def test_a_task_is_found_in_either_spelling(root: Path) -> None:
    listed, stored = (unicodedata.normalize(form, "tête") for form in ("NFC", "NFD"))
    (root / "brain").rename(root / stored)
    datamodule = FewShotTasks(target=listed, root=root, num_workers=0)
    datamodule.setup()
    assert datamodule.name == f"FewShotTasks_{listed}"


def test_what_belongs_to_no_task_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(root / "liver" / "test" / "bad" / "a.png", (10, 10))
    put(root / "loose.png", (10, 10))
    (root / "spleen").symlink_to("nowhere")
    datamodule = ready(root)
    assert f"left out what belongs to no task (2, such as {root / 'liver'})" in caplog.text
    assert f"broken link: 1, such as {root / 'spleen'}" in caplog.text
    assert datamodule.left_out.unread == {"broken link": [root / "spleen"]}


def test_a_support_folder_without_images_says_what_it_holds(root: Path) -> None:
    (root / "skin" / "support").mkdir()
    (root / "skin" / "support" / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"0 normal images, expected at least 1 .*Left out 1 file .*\.gif: 1"):
        ready(root)


@pytest.mark.parametrize("issuer", ["A", "B", None])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_support_patient_of_the_test_is_refused_whoever_issued_the_id(root: Path, issuer, is_new: bool) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for index, tested in enumerate("AB"):
        tags = {"PatientID": "7", "IssuerOfPatientID": tested}
        write_dicom(root / "skin" / "test" / "bad" / f"d{index}.dcm", pixels + index, **tags)
    tags = {"PatientID": "7"} | ({"IssuerOfPatientID": issuer} if issuer else {})
    write_dicom(root / "skin" / "support" / "s.dcm", pixels + 9, **tags)
    if is_new:
        shutil.rmtree(root / "skin" / "train")
    with pytest.raises(ValueError, match="1 support image"):
        ready(root)
