"""Exit codes, error messages and our own subcommands, without running a model."""

import subprocess
import sys
from types import ModuleType

import pytest
from anomalib.cli.cli import AnomalibCLI
from anomalib.pipelines.benchmark.generator import BenchmarkJobGenerator

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.cli import main as cli
from anomalib_medical.cli.configs import list_configs
from anomalib_medical.cli.guides import ANOMALIB
from anomalib_medical.cli.main import COMMANDS

HEAVY = {"anomalib.models", "lightning", "pandas", "sklearn", "timm", "torch", "torchvision"}


@pytest.fixture
def failing(monkeypatch):
    """Adds a subcommand `fail` that raises what it is given."""

    def add(error: Exception) -> None:
        def run(_: object) -> int:
            raise error

        module = ModuleType("fail")
        module.__dict__.update(DESCRIPTION="Fails.", add_arguments=lambda _: None, run=run)
        monkeypatch.setitem(sys.modules, "anomalib_medical.cli.fail", module)
        monkeypatch.setattr(cli, "COMMANDS", (*COMMANDS, "fail"))

    return add


def in_a_process_of_its_own(*arguments: str) -> tuple[str, set[str]]:
    """What the program prints, and which of `HEAVY` it has imported in the end."""
    code = f"""
import atexit, sys
sys.argv = ["anomalib-medical", *{arguments}]
from anomalib_medical.cli.main import main
atexit.register(lambda: print("imported", *({HEAVY} & set(sys.modules))))
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    printed, _, imported = result.stdout.rpartition("imported")
    return printed, set(imported.split())


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["configs"], *([name, "--help"] for name in (*COMMANDS, *ANOMALIB))],
    ids=" ".join,
)
def test_help_waits_for_no_import(arguments):
    printed, imported = in_a_process_of_its_own(*arguments)
    assert len(printed) > 30
    assert not imported


def test_a_command_that_looks_for_a_class_finds_ours():
    """In the program nothing is registered by the import of the package."""
    code = """
import sys
sys.argv = ["anomalib-medical"]
from anomalib_medical import registration
assert "torch" not in sys.modules
print(registration.find_model("Scrd", "").__name__, registration.find_datamodule("Phantom", "").__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.split() == ["Scrd", "Phantom"]


def test_help_lists_our_subcommands_beside_anomalibs(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n  {name} " in shown for name in (*COMMANDS, *ANOMALIB))


def test_nothing_to_do_is_an_error_that_shows_what_there_is(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "quickstart" in capsys.readouterr().out


def test_all_of_anomalibs_commands_are_known():
    names = {*AnomalibCLI.subcommands(), *AnomalibCLI.anomalib_subcommands(), "install"}
    assert set(ANOMALIB) == names


def test_a_mistyped_command_gets_a_hint(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["tarin"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: There is no command 'tarin'. Did you mean 'train'?\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_subcommand_has_its_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.startswith(f"usage: anomalib-medical {name} ")
    assert "--" in shown


@pytest.mark.parametrize("name", sorted(set(ANOMALIB) - {"install"}))
def test_the_short_help_names_options_that_there_are(name, capsys):
    """Theirs, with -vv, has all of them."""
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    short = capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main([name, "--help", "-vv"])
    long = capsys.readouterr().out
    options = {word.strip(",") for word in short.split() if word.startswith("--")}
    shortened = {option.partition(".")[0] for option in options - {"--help", "--trainer.OPTION"}}
    assert {"--model", "--ckpt_path"} <= shortened
    assert [option for option in shortened if option not in long] == []


def test_version_names_both_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert "anomalib 2." in capsys.readouterr().out


def test_configs_lists_the_files(capsys):
    cli.main(["configs"])
    shown = capsys.readouterr().out
    assert all(path.as_posix() in shown for path in list_configs())


def test_configs_copies_and_fails_if_a_file_differs(tmp_path, capsys):
    cli.main(["configs", "--copy", str(tmp_path)])
    cli.main(["configs", "--copy", str(tmp_path)])
    changed = tmp_path / "quickstart.yaml"
    changed.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        cli.main(["configs", "--copy", str(tmp_path)])
    assert stop.value.code == 1
    assert f"{changed}: left alone" in capsys.readouterr().out
    assert changed.read_text() == "mine"


def test_a_user_error_is_one_line(failing, capsys):
    failing(FileNotFoundError("no folder x"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["fail"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: no folder x\n")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_debug_shows_the_traceback_of_a_user_error(by, failing, monkeypatch):
    failing(FileNotFoundError("no folder x"))
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1" if by == "variable" else "0")
    with pytest.raises(FileNotFoundError):
        cli.main(["fail", "--debug"] if by == "option" else ["fail"])


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), ValueError("raised outside our packages")])
def test_a_programming_error_keeps_its_traceback(error, failing):
    failing(error)
    with pytest.raises(type(error)):
        cli.main(["fail"])


def test_the_benchmark_builds_our_classes(tiny_folder):
    config = {
        "seed": 0,
        "model": {"class_path": "Scrd", "init_args": {"backbone": "resnet18", "pre_trained": False}},
        "data": {"class_path": "MedicalFolder", "init_args": {"root": str(tiny_folder), "seed": {"grid": [0, 1]}}},
    }
    jobs = list(BenchmarkJobGenerator("cpu").generate_jobs(config, None))
    assert [type(job.model) for job in jobs] == [Scrd, Scrd]
    assert [type(job.datamodule) for job in jobs] == [MedicalFolder, MedicalFolder]
    assert [job.datamodule.seed for job in jobs] == [0, 1]
