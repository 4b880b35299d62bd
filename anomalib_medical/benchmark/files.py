"""Files that appear complete or not at all, and errors that name them."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from zipfile import BadZipFile

import numpy as np
import yaml
from pandas import DataFrame

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import finite_or_none

_T = TypeVar("_T")
# What readers of JSON, YAML, CSV, gzip and NumPy raise of content that is not theirs.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, EOFError, BadGzipFile, BadZipFile, yaml.YAMLError)


class RunFolderError(MedicalError):
    """A run folder cannot be used, or a file in it cannot be read."""


@contextlib.contextmanager
def atomic(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a new file that takes ``path``'s place when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names of files that are no text become text that every reader takes.
    encoding, errors, newline = (None, None, None) if mode == "wb" else ("utf-8", "backslashreplace", "")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON
    """Write a dataclass, or what JSON knows; nan becomes null."""
    with atomic(path) as file:
        json.dump(_plain(value), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, table: DataFrame) -> None:
    """Write a table; nine digits tell every float32 apart."""
    with atomic(path) as file:
        table.to_csv(file, index=False, float_format="%.9g", lineterminator="\n")


def read_json(path: Path, kind: type[_T]) -> _T:
    """Read a dataclass; `RunFolderError` if the file is missing, damaged or of another kind."""
    with explained(path):
        built: _T = build(kind, json.loads(path.read_text(encoding="utf-8")))
        return built


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what reading ``path`` raises into a `RunFolderError` that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{path} is missing: this is no complete run folder. Run the benchmark with this folder as --output."
        raise RunFolderError(msg) from error
    except _DAMAGE as error:
        msg = (
            f"{path} is damaged or of another version ({type(error).__name__}: {error}). Delete it and run the "
            "benchmark again to remake it."
        )
        raise RunFolderError(msg) from error


def build(kind: Any, value: Any) -> Any:  # noqa: ANN401 - any type, of JSON
    """Make what an annotation says of JSON, values as text too; `TypeError` if a dataclass has other fields."""
    origin, of = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping) or value.keys() - {each.name for each in fields(kind)}:
            msg = f"it does not hold a {kind.__name__}"
            raise TypeError(msg)
        hints = get_type_hints(kind)
        absent = dict.fromkeys(name for name, hint in hints.items() if get_origin(hint) is types.UnionType)
        return kind(**{**absent, **{name: build(hints[name], each) for name, each in value.items()}})
    if origin is types.UnionType:
        return None if value is None else build(of[0], value)
    if isinstance(value, str) and (origin in {list, dict} or kind in {int, float, bool}):
        value = json.loads(value)
    if origin is list:
        return [build(of[0], each) for each in value]
    return {name: build(of[1], each) for name, each in value.items()} if origin is dict else value


def _plain(value: object) -> object:
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return finite_or_none(value) if isinstance(value, float) else value
