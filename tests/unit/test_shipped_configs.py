"""Every shipped YAML file is understood by the command line, down to the arguments of its classes.

The plans in benchmark/ have tests of their own, in tests/unit/benchmark/test_command.py.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from anomalib_medical.cli.anomalib_commands import MedicalCLI
from anomalib_medical.cli.configs import configs_dir, list_configs

CONFIGS = [path for path in list_configs() if path.parts[0] != "benchmark"]


class ParsingCLI(MedicalCLI):
    """Parses, builds nothing."""

    def instantiate_classes(self) -> None:
        pass


def parse(path: Path) -> dict[str, Any]:
    """The parsed `model` and `data` of a configuration file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    arguments = ["--config", str(path)] if "model" in content else ["--model", "Padim", "--data", str(path)]
    return ParsingCLI(["fit", *arguments], run=False).config.fit.as_dict()


def given(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a file sets, by section."""
    sections = content if "model" in content else {"data": content}
    return {name: sections[name] for name in ("model", "data") if name in sections}


@pytest.mark.parametrize("relative", CONFIGS, ids=str)
def test_every_file_is_parsed_to_what_it_says(relative):
    parsed = parse(configs_dir() / relative)
    for name, section in given(yaml.safe_load((configs_dir() / relative).read_text(encoding="utf-8"))).items():
        assert parsed[name]["class_path"].rpartition(".")[2] == section["class_path"].rpartition(".")[2]
        for argument, value in section["init_args"].items():
            if not isinstance(value, dict):
                assert parsed[name]["init_args"][argument] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("relative", CONFIGS, ids=str)
def test_an_argument_that_its_class_does_not_have_is_refused(relative, tmp_path, capsys):
    content = yaml.safe_load((configs_dir() / relative).read_text(encoding="utf-8"))
    for section in given(content).values():
        section["init_args"]["renamed"] = 1
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit):
        parse(path)
    assert "renamed" in capsys.readouterr().err
