"""Listing and copying the shipped configuration files."""

from pathlib import Path

import pytest
import yaml

from anomalib_medical.cli import configs
from anomalib_medical.cli.configs import COPIED, DIFFERENT, SAME, configs_dir, copy_configs, list_configs


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A package folder with two configuration files."""
    package = tmp_path / "package"
    (package / "configs" / "model").mkdir(parents=True)
    (package / "configs" / "a.yaml").write_text("# First.\n# Second.\na: 1\n")
    (package / "configs" / "model" / "b.yaml").write_text("b: 1\n")
    monkeypatch.setattr(configs, "__file__", str(package / "cli" / "configs.py"))
    return package


def test_files_inside_the_package_come_first(shipped):
    (shipped.parent / "configs").mkdir()
    assert configs_dir() == shipped / "configs"


def test_files_beside_the_package_are_found(shipped):
    (shipped / "configs").rename(shipped.parent / "configs")
    assert configs_dir() == shipped.parent / "configs"


def test_missing_files_are_an_incomplete_installation(shipped):
    (shipped / "configs").rename(shipped / "elsewhere")
    with pytest.raises(FileNotFoundError, match="install it again"):
        configs_dir()


@pytest.mark.usefixtures("shipped")
def test_the_first_comment_describes_a_file():
    assert list_configs() == {Path("a.yaml"): "First.", Path("model/b.yaml"): ""}


@pytest.mark.usefixtures("shipped")
def test_copying_keeps_folders_and_what_is_there(tmp_path):
    target = tmp_path / "mine"
    assert copy_configs(target) == dict.fromkeys([Path("a.yaml"), Path("model/b.yaml")], COPIED)
    (target / "a.yaml").write_text("a: 2\n")
    assert copy_configs(target) == {Path("a.yaml"): DIFFERENT, Path("model/b.yaml"): SAME}
    assert (target / "a.yaml").read_text() == "a: 2\n"
    assert (target / "model" / "b.yaml").read_text() == "b: 1\n"


def test_every_shipped_file_is_yaml_and_described():
    for path, description in list_configs().items():
        assert description, path
        assert isinstance(yaml.safe_load((configs_dir() / path).read_text(encoding="utf-8")), dict), path
