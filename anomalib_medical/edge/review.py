"""What a run or a watch has left in its folder, put together to be looked at, and what readers say of it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from ..io import ImageAddress, ImageReadError, counted, sha256
from . import EdgeError
from .processing import HEATMAPS
from .results import PREDICTIONS, SERIES, image_name

VERDICTS = "verdicts.jsonl"
_PROCESSED = "processed"  # as in watch.py, which needs more than looking does
_OPPOSITES = {"normal": "abnormal", "abnormal": "normal"}
_LONGEST_COMMENT = 4000
_SHOWN = ("raw_score", "score", "label", "threshold", "note")


@dataclass(frozen=True)
class Item:
    """A line of the worklist: a series, or an image of none."""

    name: str
    row: Mapping[str, Any]  # of series.jsonl, or of predictions.jsonl
    images: list[str]  # names of its slices, in their order
    worst: str  # the one with the highest score

    @property
    def patient(self) -> str:
        """Name made of content, the same for all series of a patient; empty for an image of no series."""
        return str(self.row.get("patient", ""))


@dataclass
class _Tables:
    items: dict[str, Item] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the images, by their names


class Review:
    """The folder `output` as a worklist, and the file of verdicts in it.

    Identifiers, that is paths, are in none of its answers unless asked for.
    """

    def __init__(self, output: Path, *, show_identifiers: bool = False) -> None:
        self.output = output
        self._show_identifiers = show_identifiers
        self._lock = Lock()
        self._state: object = None
        self._tables = _Tables()
        if not self._file(PREDICTIONS).is_file():
            msg = f"There is no {PREDICTIONS}.jsonl in {output}: give the folder that was the --output of run or watch."
            raise EdgeError(msg)

    def worklist(self) -> list[dict[str, Any]]:
        """Describe the items, the highest score first, each with the last verdict."""
        last = {verdict["item"]: verdict for verdict in self.verdicts()}
        items = sorted(self._load().items.values(), key=_rank)
        return [self._describe(item, last.get(item.name)) for item in items]

    def address(self, image: str) -> ImageAddress:
        """Find the original of an image.

        Raises:
            KeyError: If there is no such image in the results.
            ImageReadError: If its file is gone, or is not the one that was scored.
        """
        row = self._load().rows[image]
        address = ImageAddress.parse(row["path"])
        digest = image.partition("_")[0]
        for path in (address.path, *sorted((self.output / _PROCESSED).glob(f"{digest}*"))):
            try:
                stat = path.stat()
                if path.is_file() and image_name(_digest(path, stat.st_mtime_ns, stat.st_size)) == digest:
                    return ImageAddress(path, address.selection)
            except OSError:
                continue
        found = "a file that is gone, or is not the one that was scored"
        raise ImageReadError.of(address.path, found, "the original", "Put it back where it was.")

    def heatmap(self, image: str) -> Path | None:
        """Find the heatmap of an image, None without one; a KeyError if there is no such image in the results."""
        self._load().rows[image]  # only names that the tables have become part of a path
        path = self.output / HEATMAPS / f"{image}.png"
        return path if path.is_file() and path.resolve().is_relative_to(self.output.resolve()) else None

    def verdicts(self) -> Iterator[dict[str, Any]]:
        """Go through what readers said, the oldest first; a line that a power cut left unfinished is passed over."""
        return _lines(self.output / VERDICTS)

    def add_verdict(self, said: Mapping[str, Any], model: str) -> dict[str, Any]:
        """Append a verdict, which is on the disk when this returns.

        Args:
            said: `item`, `verdict` (agree or disagree; normal or abnormal where the model gave no label), `comment`,
                and `image`, the slice that was looked at.
            model: The model's name and digest.

        Raises:
            EdgeError: If it is none.
        """
        item = self._load().items.get(str(said.get("item")))
        if item is None:
            msg = "There is no such item in the worklist (any more): load the page again."
            raise EdgeError(msg)
        verdict, comment, image = (str(said.get(key) or "") for key in ("verdict", "comment", "image"))
        label = str(item.row["label"])
        allowed = {"agree": label, "disagree": _OPPOSITES[label]} if label else dict.fromkeys(_OPPOSITES, "")
        if verdict not in allowed or image not in item.images or len(comment) > _LONGEST_COMMENT:
            expected = f"{' or '.join(allowed)} on one of its slices, with a comment of {_LONGEST_COMMENT} characters"
            msg = f"Got the verdict {verdict[:20]!r}, expected {expected} at most."
            raise EdgeError(msg)
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "item": item.name,
            "verdict": verdict,
            "label": allowed[verdict] or verdict,
            "image": image,
            "comment": comment,
            "raw_score": item.row["raw_score"],
            "threshold": item.row["threshold"],
            "model": model,
        }
        _append(self.output / VERDICTS, entry, self._lock)
        return entry

    def export(self, target: Path) -> str:
        """Write the last verdict of each item as a manifest (``path``, ``label``, ``patient``); says what it holds.

        All slices of a series that is normal are. Of an abnormal one the worst slice is, or the one that was looked at
        when the model's label was not agreed with; of the others nothing is known, and they are left out.

        Raises:
            EdgeError: If there is no verdict, or the file is there already.
        """
        tables = self._load()
        last = {said["item"]: said for said in self.verdicts() if said["item"] in tables.items}
        if not last:
            msg = f"There is no verdict in {self.output}: nothing to export. Give some on the page of review first."
            raise EdgeError(msg)
        rows, lost = [], 0
        for name, said in last.items():
            item = tables.items[name]
            found = said["image"] if said["verdict"] in {"disagree", "abnormal"} else item.worst
            for image in item.images if said["label"] == "normal" else [found]:
                try:
                    address = self.address(image)
                except (ImageReadError, KeyError):
                    lost += 1
                    continue
                path = ImageAddress(Path(os.path.abspath(address.path)), address.selection)  # noqa: PTH100 - links stay
                rows.append((str(path), said["label"], item.patient))
        try:
            with target.open("x", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([("path", "label", "patient"), *rows])
        except FileExistsError as error:
            msg = f"{target} is there already, and nothing is overwritten: choose another --export."
            raise EdgeError(msg) from error
        gone = f"; {counted(lost, 'image')} left out, whose files are gone or changed" if lost else ""
        return f"{counted(len(rows), 'image')} of {counted(len(last), 'item')} with a verdict{gone}"

    def _describe(self, item: Item, said: Mapping[str, Any] | None) -> dict[str, Any]:
        tables = self._load()
        slices = [
            {"image": image, "path": tables.rows[image]["path"]} | {key: tables.rows[image][key] for key in _SHOWN}
            for image in item.images
        ]
        if not self._show_identifiers:
            for each in slices:
                del each["path"]
        shown = {key: item.row[key] for key in _SHOWN}
        verdict = said and {key: said[key] for key in ("time", "verdict", "label", "comment")}
        return {
            "name": item.name,
            "patient": item.patient,
            "worst": item.worst,
            "slices": slices,
            "verdict": verdict,
            **shown,
        }

    def _load(self) -> _Tables:
        """Read the tables, again where they have grown."""
        with self._lock:
            files = [self._file(stem) for stem in (PREDICTIONS, SERIES)]
            state = [(stat.st_mtime_ns, stat.st_size) for stat in (path.stat() for path in files if path.exists())]
            if state != self._state:
                self._tables, self._state = _read(*files), state
            return self._tables

    def _file(self, stem: str) -> Path:
        return self.output / f"{stem}.jsonl"


def _read(predictions: Path, series: Path) -> _Tables:
    rows: dict[str, dict[str, Any]] = {}
    for row in _lines(predictions):
        # A copy of a file has the same name, and is of no series.
        if row.get("series") or row["image"] not in rows:
            rows[row["image"]] = row
    slices: dict[str, list[dict[str, Any]]] = {}
    for row in rows.values():
        slices.setdefault(row.get("series") or "", []).append(row)
    items = {}
    for row in _lines(series):
        found = sorted(slices.pop(row["series"], []), key=lambda each: int(each["slice"]))
        if found:
            worst = max(found, key=lambda each: float(each["raw_score"]))
            items[row["series"]] = Item(row["series"], row, [each["image"] for each in found], worst["image"])
    for row in slices.pop("", []):
        items[row["image"]] = Item(row["image"], row, [row["image"]], row["image"])
    return _Tables(items, rows)


def _rank(item: Item) -> tuple[bool, float, str]:
    score = item.row["score"] if item.row["score"] is not None else item.row["raw_score"]
    return score is None, -float(score or 0), item.name


@lru_cache(maxsize=4096)
def _digest(path: Path, *state: int) -> str:
    """SHA-256 of a file in this state."""
    del state
    return sha256(path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            # Being written, or cut off with the power.
            continue


def _append(path: Path, entry: Mapping[str, Any], lock: Lock) -> None:
    """Add a line in one piece, on the disk when this returns, behind whatever a power cut has left."""
    with lock:
        is_new = not path.exists()
        with path.open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
