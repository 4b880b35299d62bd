"""The YAML files shipped with the package: where they are, what they are, and copying them out."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path


def configs_dir() -> Path:
    """Folder of the shipped YAML files.

    Returns:
        `configs/` inside the installed package, or beside it in an editable install.

    Raises:
        FileNotFoundError: If neither exists.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    msg = f"The configuration files are missing from {package}: the installation is incomplete, install it again."
    raise FileNotFoundError(msg)


def list_configs() -> dict[Path, str]:
    """Shipped YAML files and what they are for.

    Returns:
        Path relative to `configs_dir()` -> the file's first comment line ("" if it has none), sorted by path.
    """
    root = configs_dir()
    return {path.relative_to(root): _first_comment(path) for path in sorted(root.rglob("*.yaml"))}


@dataclass
class CopyReport:
    """What `copy_configs` did, as paths relative to the target folder."""

    copied: list[Path] = field(default_factory=list)
    same: list[Path] = field(default_factory=list)
    different: list[Path] = field(default_factory=list)


def copy_configs(target: Path) -> CopyReport:
    """Copy the shipped YAML files into `target`, keeping their folders and never overwriting a file.

    Args:
        target: Folder to copy into; made if missing.

    Returns:
        Which files were copied, were there already, and were left alone because they differ from ours.
    """
    root = configs_dir()
    report = CopyReport()
    for relative in list_configs():
        source, destination = root / relative, target / relative
        if destination.exists():
            same = destination.is_file() and destination.read_bytes() == source.read_bytes()
            (report.same if same else report.different).append(relative)
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        report.copied.append(relative)
    return report


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""
