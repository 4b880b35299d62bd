"""Our classes in anomalib's registries."""

import logging

import anomalib.data
import anomalib.models
import pytest
from anomalib.data import get_datamodule
from anomalib.engine import engine
from anomalib.models import UnknownModelError, get_model, list_models

import anomalib_medical
from anomalib_medical import registration

SMALL = {
    "D24fad": {"backbone": "resnet18", "image_size": 64, "pre_trained": False},
    "Ddad": {"image_size": 32},
    "Scrd": {"backbone": "resnet18", "image_size": 64, "pre_trained": False},
}
SHORT_NAMES = [path.rpartition(".")[2] for path in registration.MODELS]


@pytest.fixture(autouse=True)
def registered() -> None:
    registration.register()


@pytest.mark.parametrize("path", registration.MODELS)
def test_models_are_found_by_every_name(path):
    name = path.rpartition(".")[2]
    cls = getattr(anomalib.models, name)
    small = SMALL[name]
    assert {name.lower()} <= list_models()
    assert isinstance(get_model(name.lower(), **small), cls)
    for class_path in (name, f"anomalib_medical.{name}", path, f"{cls.__module__}.{name}"):
        assert isinstance(get_model({"class_path": class_path, "init_args": dict(small)}), cls)


@pytest.mark.parametrize("path", registration.DATAMODULES)
def test_datamodules_are_found_by_every_name(path, tiny_folder):
    name = path.rpartition(".")[2]
    needed = {"target": "brain"} if name == "FewShotTasks" else {}
    for class_path in (name, f"anomalib_medical.{name}"):
        config = {"class_path": class_path, "init_args": {"root": str(tiny_folder), **needed}}
        assert type(get_datamodule(config)).__name__ == name


def test_the_package_exports_what_is_listed():
    listed = {path.rpartition(".")[2] for path in (*registration.MODELS, *registration.DATAMODULES)}
    assert set(anomalib_medical.__all__) == {*listed, "MedicalPostProcessor"}


def test_other_packages_stay_refused(caplog):
    with pytest.raises(UnknownModelError):
        get_model({"class_path": "os.path"})
    assert "Module import from 'os' is not allowed" in caplog.text


def test_registering_twice_changes_nothing(caplog):
    before = dict(vars(anomalib.models)), dict(vars(anomalib.data)), set(anomalib.models.ALLOWED_MODULES)
    registration.register()
    assert before == (dict(vars(anomalib.models)), dict(vars(anomalib.data)), anomalib.models.ALLOWED_MODULES)
    assert not caplog.records


def test_a_foreign_class_of_the_same_name_keeps_it(monkeypatch, caplog):
    foreign = type("Scrd", (), {})
    monkeypatch.setattr(anomalib.models, "Scrd", foreign)
    with caplog.at_level(logging.WARNING):
        registration.register()
    assert anomalib.models.Scrd is foreign
    assert "use anomalib_medical.Scrd for ours" in caplog.text


@pytest.mark.parametrize(("rank", "folders"), [("0", ["v0", "v1"]), ("1", ["v0"])])
def test_only_the_first_process_of_a_run_makes_its_folder(tmp_path, monkeypatch, rank, folders):
    first = engine.create_versioned_dir(tmp_path)
    monkeypatch.setattr(engine, "create_versioned_dir", engine.create_versioned_dir)  # as it was, afterwards
    monkeypatch.setenv("LOCAL_RANK", rank)
    registration.register()
    assert engine.create_versioned_dir(tmp_path) == tmp_path / folders[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", *folders]
    assert first == tmp_path / "v0"
