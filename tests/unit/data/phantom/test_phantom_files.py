"""The phantom's files: the same bytes for the same seed, whole or remade, whoever else writes at the time."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.data.images import read_mask
from anomalib_medical.data.phantom import PhantomSpec, ensure_phantom, files, read_manifest
from anomalib_medical.data.phantom.lesions import DIFFICULTIES, add_lesion

SMALL = PhantomSpec(difficulty="easy", image_size=64, train=4, test_normal=2, test_abnormal=6)


def digest(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def spec(**changes) -> PhantomSpec:
    return PhantomSpec(**{**files.asdict(SMALL), **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom that no test may change."""
    return ensure_phantom(tmp_path_factory.mktemp("phantom"), SMALL)


def test_layout_and_manifest(made: Path) -> None:
    rows = read_manifest(made)
    assert len(rows) == 12
    assert {row["kind"] for row in rows} == {"good", "tumour", "cyst", "ring", "oedema", "spots", "mass"}
    assert sorted(digest(made)) == sorted(
        [
            files.MANIFEST,
            *(r["file"] for r in rows),
            *(r["mask"] for r in rows if r["mask"]),
        ]
    )
    for row in rows:
        with Image.open(made / row["file"]) as image:
            assert (image.mode, image.size) == ("L", (64, 64))
        assert row["label"] == ("normal" if row["kind"] == "good" else "abnormal")
        area = int(read_mask(made / row["mask"]).sum()) if row["mask"] else 0
        assert area == int(row["lesion_area"])
        assert (area > 0) == (row["label"] == "abnormal")


def test_patients_of_train_and_test_differ_and_test_patients_have_both_labels() -> None:
    plan = files._plan(PhantomSpec())
    train = {patient for split, _, patient, _ in plan if split == "train"}
    normal = {patient for split, kind, patient, _ in plan if split == "test" and kind == "good"}
    abnormal = {patient for split, kind, patient, _ in plan if split == "test" and kind != "good"}
    assert normal == abnormal
    assert not train & normal
    assert len({(patient, number) for _, _, patient, number in plan}) == len(plan) == 300


@pytest.mark.parametrize("train", range(1, 9))
def test_no_number_of_training_images_lets_a_patient_into_both(train: int) -> None:
    plan = files._plan(spec(train=train))
    patients = {part: {patient for split, _, patient, _ in plan if split == part} for part in ("train", "test")}
    assert not patients["train"] & patients["test"]


@pytest.mark.parametrize("kind", ["oedema", "spots"])
def test_a_mask_ends_where_two_fifths_of_the_change_are_left(kind: str) -> None:
    healthy = files._patient(0, 0, 96).slice(np.random.default_rng(0))
    sick, mask = add_lesion(kind, healthy, DIFFICULTIES["easy"], np.random.default_rng(1))
    share = np.abs(sick - healthy.tissue) / np.abs(sick - healthy.tissue).max()
    assert share[mask].min() > 0.39
    assert share[~mask].max() < 0.42


def test_same_seed_same_bytes_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    files._patient.cache_clear()
    again = ensure_phantom(tmp_path, SMALL)
    assert again.name == made.name
    assert digest(again) == digest(made)
    other = ensure_phantom(tmp_path, spec(seed=1))
    assert other != again
    assert not set(digest(other).values()) & set(digest(made).values())


def test_more_images_leave_the_others_as_they_are(made: Path, tmp_path: Path) -> None:
    more = digest(ensure_phantom(tmp_path, spec(train=4, test_abnormal=7)))
    del more[files.MANIFEST]
    assert {name: value for name, value in digest(made).items() if name != files.MANIFEST}.items() <= more.items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulty": "trivial"}, "expected one of easy, medium, hard"),
        ({"image_size": 8}, "expected 64 to 2048 pixels"),
        ({"train": 0}, "at least one training image"),
        ({"seed": -1}, "nothing negative"),
    ],
)
def test_bad_specifications(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**change)


def test_a_complete_phantom_is_not_written_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_write", lambda *_: pytest.fail("made again"))
    assert ensure_phantom(made.parent, SMALL) == made


def damage_image(folder: Path) -> None:
    path = folder / read_manifest(folder)[3]["file"]
    path.write_bytes(path.read_bytes()[:-20])


def remove_mask(folder: Path) -> None:
    (folder / read_manifest(folder)[-1]["mask"]).unlink()


def cut_manifest(folder: Path) -> None:
    path = folder / files.MANIFEST
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))


def change_manifest(folder: Path) -> None:
    path = folder / files.MANIFEST
    path.write_text(path.read_text().replace(",p0001,", ",p0009,"))


def remove_manifest(folder: Path) -> None:
    (folder / files.MANIFEST).unlink()


@pytest.mark.parametrize("damage", [damage_image, remove_mask, cut_manifest, change_manifest, remove_manifest])
def test_damage_is_noticed_and_repaired(made: Path, tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    folder = ensure_phantom(tmp_path, SMALL)
    (folder / "notes.txt").write_text("mine")
    damage(folder)
    assert ensure_phantom(tmp_path, SMALL) == folder
    assert "is damaged or incomplete: making it again" in caplog.text
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    assert digest(folder) == digest(made)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([0, 1, 2])
    save = files._save
    monkeypatch.setattr(files, "_save", lambda path, pixels: (next(calls), save(path, pixels))[1])
    with pytest.raises((StopIteration, RuntimeError)):
        ensure_phantom(tmp_path, SMALL)
    assert not list(tmp_path.iterdir())


def test_folders_of_killed_runs_are_removed_later(tmp_path: Path) -> None:
    fresh, old = tmp_path / f".{SMALL.folder_name}-fresh", tmp_path / f".{SMALL.folder_name}-old"
    for path in (fresh, old):
        path.mkdir()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    ensure_phantom(tmp_path, SMALL)
    assert fresh.exists()
    assert not old.exists()


def test_a_root_that_cannot_be_written(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermissionError, match=r"Cannot write the phantom images into .*file \(.*Give a folder that is"):
        ensure_phantom(tmp_path / "file", SMALL)

    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    # Permissions do not bind root, who runs tests in containers.
    monkeypatch.setattr(files.tempfile, "mkdtemp", refuse)
    with pytest.raises(PermissionError, match=r"\(Permission denied\)\. Give a folder that is writable"):
        ensure_phantom(tmp_path, SMALL)
    assert ensure_phantom(made.parent, SMALL) == made


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, so that no second import of torch is waited for")
def test_two_processes_at_once(made: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()

    def work() -> None:
        write = files._write
        # Both start to write at the same time, and both finish before one of them publishes.
        files._write = lambda *arguments: (barrier.wait(60), write(*arguments), barrier.wait(60))
        answers.put(ensure_phantom(tmp_path, SMALL))

    processes = [context.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    folders = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert folders == [tmp_path / SMALL.folder_name] * 2
    assert digest(folders[0]) == digest(made)
    assert [path.name for path in tmp_path.iterdir()] == [SMALL.folder_name]


@pytest.mark.parametrize("kind", ["tumour", "cyst", "ring", "oedema", "spots", "mass"])
@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_a_lesion_changes_its_surroundings_and_nothing_else(kind: str, difficulty: str) -> None:
    specification = spec(image_size=96, difficulty=difficulty)
    for patient in range(3):
        healthy, none = files._render(specification, "good", patient, 0)
        sick, mask = files._render(specification, kind, patient, 0)
        assert none is None
        assert mask is not None
        change = np.abs(sick.astype(int) - healthy)
        assert change[mask].mean() > 3 * change[~mask].mean()
        rows, columns = np.nonzero(mask)
        near = np.zeros_like(mask)
        near[max(0, rows.min() - 16) : rows.max() + 17, max(0, columns.min() - 16) : columns.max() + 17] = True
        assert change[~near].max(initial=0) <= 12
