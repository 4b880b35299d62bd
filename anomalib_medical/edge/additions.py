"""What is in a bundle and was not made with it: code that somebody put there to be run in the place of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader, all_suffixes
from pathlib import Path

_CACHE = "__pycache__"


def additions(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Look for files that a bundle was not made with.

    In the folders that came with the bundle every file must be one of its own; Python's compiled files must be of their
    sources. Beside these folders there may be results, an environment and the like, but no module, for Python to find
    before the one it looks for. Hidden files, which no module can be and systems leave behind, are passed over.

    Args:
        folder: The bundle.
        names: Its own files, with forward slashes.

    Returns:
        One line for each file.
    """
    folder, own = Path(folder), frozenset(names)
    lines = [f"{name}: not of this bundle" for name in sorted(_added(folder, own))]
    sources = sorted(name for name in own if name.endswith(".py") and (folder / name).is_file())
    return lines + [f"{name}: its compiled file is of another program" for name in sources if _hides(folder / name)]


def _added(folder: Path, own: frozenset[str]) -> Iterator[str]:
    own_folders = {name.partition("/")[0] for name in own if "/" in name}
    for entry in folder.iterdir():
        if entry.name in own_folders:
            found = (path.relative_to(folder).as_posix() for path in _files(entry))
            yield from (name for name in found if name not in own and not _is_cache_of_own(name, own))
        elif entry.name not in own and not entry.name.startswith(".") and _is_module(entry):
            yield entry.name


def _is_module(path: Path) -> bool:
    suffixes = all_suffixes()
    return path.name.endswith(tuple(suffixes)) or any((path / f"__init__{suffix}").exists() for suffix in suffixes)


def _files(folder: Path) -> Iterator[Path]:
    """Everything below a folder but hidden files; a link to a folder is one of them, whatever it leads to."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent) / name for name in names if not name.startswith("."))
        yield from (Path(parent) / name for name in folders if (Path(parent) / name).is_symlink())


def _is_cache_of_own(name: str, own: frozenset[str]) -> bool:
    parts = name.split("/")
    source = "/".join([*parts[:-2], f"{parts[-1].partition('.')[0]}.py"])
    return parts[-2] == _CACHE and name.endswith(".pyc") and source in own


def _hides(source: Path) -> bool:
    """Whether Python would run what is in its cache, with the source's time and size, and that is not the source."""
    try:
        found = SourceFileLoader(source.stem, str(source)).get_code(source.stem)
    except (EOFError, ImportError, TypeError, ValueError):
        return True
    return found != compile(source.read_bytes(), source, "exec", dont_inherit=True)
