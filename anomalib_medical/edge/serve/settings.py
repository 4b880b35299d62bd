"""The settings of `serve`: a YAML file, every mistake in which is named before anything is done."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .. import EdgeError

KINDS = ("capture", "segmentation", "map", "report")  # as in dicom_objects.py, which takes a second to import
_T = TypeVar("_T")


@dataclass(frozen=True)
class Secret:
    """Where a password or token is; never itself in the settings, which get copied and shown.

    Args:
        file: A file with nothing else; read each time it is needed, so that it can be changed.
        env: Or the name of an environment variable.
    """

    file: Path | None = None
    env: str | None = None

    def value(self) -> str:
        """Read it."""
        try:
            text = os.environ[self.env] if self.env else Path(self.file or "").read_text(encoding="utf-8").strip()
        except (KeyError, OSError, UnicodeDecodeError) as error:
            where = f"the environment variable {self.env}" if self.env else f"the file {self.file}"
            msg = f"There is no password or token to read in {where}: put it there, as the settings say."
            raise EdgeError(msg) from error
        return text


@dataclass(frozen=True)
class Tls:
    """Files in PEM format.

    Args:
        ca: Certificates to trust; of a receiver, those that senders must show one of.
        certificate: The own one, with what is between it and the root.
        key: Its key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Look whether the files are there."""
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                msg = f"tls: {name}: there is no file {path}. Put it there, or name another in the settings."
                raise EdgeError(msg)


@dataclass(frozen=True)
class Web:
    """An archive, by DICOMweb.

    Args:
        url: Of the services, such as ``https://archive/dicom-web``.
        user: Its name, with `password`.
        password: For basic authentication.
        token: Instead, for ``Authorization: Bearer``.
        tls: Certificates; without `ca`, those that Python trusts.
        timeout: Seconds without an answer after which a request has failed.
        poll: Seconds between searches for new series; 0 for none: only studies that are told of are looked up.
        quiet: Seconds for which a series found so must not have grown.
        days: Searched are studies of so many days before today; 0 for all, also those without a date.
    """

    url: str = ""
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    tls: Tls = field(default_factory=Tls)
    timeout: float = 60.0
    poll: float = 30.0
    quiet: float = 30.0
    days: int = 7


@dataclass(frozen=True)
class Receiver:
    """How files are received by C-STORE.

    Args:
        title: The own AE title, which senders must call; "" for any.
        callers: AE titles of the senders; none for any.
        quiet: Seconds without another file after which a study is taken to be whole.
        tls: With `certificate` and `key`, TLS alone is spoken.
    """

    title: str = ""
    callers: list[str] = field(default_factory=list)
    quiet: float = 30.0
    tls: Tls = field(default_factory=Tls)


@dataclass(frozen=True)
class Peer:
    """Where results go by C-STORE.

    Args:
        host: Its name or address.
        port: Its port.
        title: Its AE title.
        own_title: The own one.
        tls: With `ca`, TLS is spoken.
        timeout: Seconds without an answer after which it has failed.
    """

    host: str = ""
    port: int = 104
    title: str = "ANY-SCP"
    own_title: str = "ANOMED"
    tls: Tls = field(default_factory=Tls)
    timeout: float = 60.0


@dataclass(frozen=True)
class Limits:
    """What may be on the disk.

    Args:
        spool: Gigabytes of files that wait to be scored and of results that wait to be sent: beyond, no more is taken.
        free: Gigabytes that must be free.
    """

    spool: float = 20.0
    free: float = 2.0


@dataclass(frozen=True)
class Settings:
    """All of the file.

    Args:
        dicomweb: The archive.
        receiver: For `--scp`.
        peer: Where results go by C-STORE; without it, those of an archive's series go back there by STOW.
        series: Which series are scored: those that fit all conditions of one of these; none for all. A condition is an
            attribute's keyword and a pattern such as ``*chest*``, or several; capitals do not matter.
        token: Without it, studies can be told of from this machine alone.
        objects: Kinds of DICOM objects to make and send.
        keep_originals: Whether originals stay in `processed/`, for the page of `review`.
        limits: What may be on the disk.
    """

    dicomweb: Web = field(default_factory=Web)
    receiver: Receiver = field(default_factory=Receiver)
    peer: Peer = field(default_factory=Peer)
    series: list[dict[str, Any]] = field(default_factory=list)
    token: Secret | None = None
    objects: list[str] = field(default_factory=lambda: ["segmentation", "report"])
    keep_originals: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check what no type says enough of."""
        for kind in self.objects:
            if kind not in KINDS:
                msg = f"objects: got {kind!r}, expected some of {', '.join(KINDS)}."
                raise EdgeError(msg)
        for condition in self.series:
            for keyword, patterns in condition.items():
                _check_condition(keyword, patterns)

    def fits(self, header: Mapping[str, str]) -> bool:
        """Whether a series with these values of attributes may be one to score; what is not told is not looked at."""
        return not self.series or any(
            all(_matches(header[keyword], patterns) for keyword, patterns in condition.items() if keyword in header)
            for condition in self.series
        )

    @property
    def keywords(self) -> list[str]:
        """The attributes that conditions are about."""
        return sorted({keyword for condition in self.series for keyword in condition})


def read_settings(path: Path | None) -> Settings:
    """Read a file of settings; the defaults without one."""
    if path is None:
        return Settings()
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"There is no file {path} of settings: give --settings one that is there."
        raise EdgeError(msg) from error
    except OSError as error:
        msg = f"The settings {path} cannot be read ({error.strerror}): let the user of this service read them."
        raise EdgeError(msg) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" (line {place.line + 1})"
        msg = f"The settings {path} are no YAML{where}: see the manual's page on `serve` for an example."
        raise EdgeError(msg) from error
    made: Settings = _made(Settings, {} if given is None else given, path.name)
    return made


def address(text: str, default: str = "127.0.0.1") -> tuple[str, int]:
    """Take ``[HOST:]PORT`` apart; without a host, this machine alone."""
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and int(port) < 2**16):
        msg = f"got {text!r}, expected [HOST:]PORT, such as 11112, or 0.0.0.0:11112 for all interfaces"
        raise ValueError(msg)
    return host.strip("[]") or default, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's ports."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_condition(keyword: object, patterns: object) -> None:
    from pydicom.datadict import tag_for_keyword

    if not isinstance(keyword, str) or tag_for_keyword(keyword) is None:
        msg = f"series: {keyword!r} is no keyword of a DICOM attribute, such as Modality or SeriesDescription."
        raise EdgeError(msg)
    several = patterns if isinstance(patterns, list) else [patterns]
    if not several or not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in several):
        msg = f"series: {keyword}: got {patterns!r}, expected a pattern such as '*chest*', or a list of them."
        raise EdgeError(msg)


def _matches(value: str, patterns: object) -> bool:
    several = patterns if isinstance(patterns, list) else [patterns]
    return any(fnmatchcase(value.strip().lower(), str(each).strip().lower()) for each in several)


def _made(kind: type[_T], given: object, where: str) -> _T:
    """Make a data class of a mapping, with its values checked."""
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # each kind is a data class
    if not isinstance(given, dict):
        msg = f"{where}: got {type(given).__name__}, expected some of {', '.join(names)}, each with its value."
        if kind is Secret:
            msg = f"{where}: expected `file: PATH` or `env: NAME`: passwords and tokens do not stand in the settings."
        raise EdgeError(msg)
    for name in given:
        if name not in names:
            msg = f"{where}: {name!r} is not known; expected some of {', '.join(names)}."
            raise EdgeError(msg)
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in given.items()})


def _value(hint: Any, given: object, where: str) -> object:  # noqa: ANN401 - whatever a type hint may be
    if get_origin(hint) in {Union, UnionType}:
        if given is None:
            return None
        hint = next(each for each in get_args(hint) if each is not type(None))
    if is_dataclass(hint):
        return _made(hint, given, where)  # type: ignore[arg-type]  # a class, not one of it
    if get_origin(hint) is list:
        if not isinstance(given, list):
            msg = f"{where}: got {given!r}, expected a list."
            raise EdgeError(msg)
        return [_value(get_args(hint)[0], each, where) for each in given]
    expected = {float: "a number, 0 or more", int: "a whole number, 0 or more", bool: "true or false", Path: "a path"}
    if get_origin(hint) is dict:
        fine = isinstance(given, dict)
    elif hint in {int, float}:
        kinds = int if hint is int else int | float
        fine = isinstance(given, kinds) and not isinstance(given, bool) and 0 <= given < math.inf
    else:
        fine = isinstance(given, {Path: str}.get(hint, hint))
    if not fine:
        what = "keywords with patterns" if get_origin(hint) is dict else expected.get(hint, "text")
        msg = f"{where}: got {given!r}, expected {what}."
        raise EdgeError(msg)
    return Path(str(given)) if hint is Path else given
