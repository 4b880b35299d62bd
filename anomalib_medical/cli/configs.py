"""The subcommand `configs`: lists the YAML files shipped with the package, or copies them out."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

DESCRIPTION = "List or copy the configuration files."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--copy",
        type=Path | None,
        metavar="DIR",
        help="Copy the files to this folder, keeping their own folders. Existing files are never overwritten.",
    )


def run(arguments: Mapping[str, Any]) -> int:
    """List or copy the files; 1 if one is in the target that differs from ours."""
    target = arguments["copy"]
    if target is None:
        print(f"Configuration files in {configs_dir()}:")
        for path, description in list_configs().items():
            print(f"  {path.as_posix()}  {description}")
        return 0
    done = copy_configs(target)
    for path, what in done.items():
        print(f"{target / path}: {what}")
    return int(DIFFERENT in done.values())


COPIED, SAME, DIFFERENT = "copied", "already there", "left alone, it differs from ours"


def configs_dir() -> Path:
    """Folder of the shipped YAML files: inside the installed package, or beside it in an editable install."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    msg = f"The configuration files are missing from {package}: the installation is incomplete, install it again."
    raise FileNotFoundError(msg)


def list_configs() -> dict[Path, str]:
    """Shipped files, relative to `configs_dir()`, and what they are for: their first comment, "" without one."""
    root = configs_dir()
    return {path.relative_to(root): _first_comment(path) for path in sorted(root.rglob("*.yaml"))}


def copy_configs(target: Path) -> dict[Path, str]:
    """Copy the shipped files into a folder and never overwrite one; returns what was done with each."""
    done = {}
    for relative in list_configs():
        source, destination = configs_dir() / relative, target / relative
        if destination.exists():
            same = destination.is_file() and destination.read_bytes() == source.read_bytes()
            done[relative] = SAME if same else DIFFERENT
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        done[relative] = COPIED
    return done


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""
