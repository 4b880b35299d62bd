"""Parts of `serve` put together in this process, around a scorer that finds something in every file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from zlib import crc32

import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage

from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.reading import FileResult
from anomalib_medical.edge.results import Row
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.edge.serve.book import Book
from anomalib_medical.edge.serve.service import Destination, Service, Source
from anomalib_medical.edge.serve.settings import Settings
from anomalib_medical.edge.serve.spool import Spool
from anomalib_medical.io import OWN_MANUFACTURER, kind_of_file, sha256
from tests.helpers.dicom_files import PLACE, make_dicom, write_dicom

UID = "1.2.826.0.1.3680043.8.498.7751"
WHO = {"PatientName": "DOE^JANE", "PatientID": "4711-0815"}


def slice_of(study: int, index: int, **tags: object) -> bytes:
    """A file of a slice of the only series of a study."""
    given = {
        **PLACE,
        **WHO,
        "StudyInstanceUID": f"{UID}.{study}",
        "SeriesInstanceUID": f"{UID}.{study}.1",
        "SOPInstanceUID": f"{UID}.{study}.1.{index}",
        "ImagePositionPatient": [0, 0, index],
        "SeriesDescription": "Chest axial",
    }
    data = make_dicom(np.full((6, 5), 10 * study + index, np.uint8), **(given | tags))
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    content = BytesIO()
    data.save_as(content, enforce_file_format=True)
    return content.getvalue()


def own_series(series: str) -> str:
    """UID of the series that objects of a series are in."""
    return f"{UID}.9.{crc32(series.encode())}"


class Processor:
    """Finds a picture in each file, and writes an object of each; counts."""

    def __init__(self, output: Path, written: list[Path]) -> None:
        self.output, self.written = output, written
        self.scored: list[str] = []
        self.before: Callable[[Path], None] = lambda _: None

    def __call__(self, files: Iterable[Path]) -> Iterator[FileResult]:
        """Process files."""
        for path in files:
            self.before(path)
            name = sha256(path)[:16]
            if kind := kind_of_file(path):
                yield FileResult(path, name, reason=f"found {kind}", no_image=kind)
            elif b"DAMAGED" in path.read_bytes():
                yield FileResult(path, name, reason="found a damaged file")
            else:
                self.scored.append(name)
                tags = {"SOPInstanceUID": f"{UID}.9.{int(name, 16)}", "SeriesInstanceUID": own_series(path.parent.name)}
                target = write_dicom(
                    self.output / "dicom" / f"{name}_capture.dcm",
                    np.zeros((4, 4), np.uint8),
                    SOPClassUID=SecondaryCaptureImageStorage,
                    Manufacturer=OWN_MANUFACTURER,
                    StudyInstanceUID=f"{UID}.9",
                    **tags,
                )
                self.written.append(target)
                row = Row(str(path), 0.5, 0.6, "abnormal", 0.4, name, 1.0, 2.0)
                yield FileResult(path, name, [row], is_dicom=True)


class Taker:
    """A destination that fails as it is told, once for each of `errors`."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.errors: list[Exception] = []

    def send(self, files: list[Path]) -> None:
        """Take files."""
        if self.errors:
            raise self.errors.pop(0)
        assert all(file.exists() for file in files)
        self.sent += [file.name for file in files]


class NoSource:
    """Brings nothing by itself."""

    trouble = ""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()

    def step(self) -> bool:
        """Do nothing."""
        return False


@contextmanager
def serving(
    output: Path,
    settings: Settings | None = None,
    destination: Destination | None = None,
    source: Callable[[Book, Spool], Source] | None = None,
    limits: tuple[float, float] = (1e12, 0.0),
) -> Iterator[tuple[Service, Spool, Book, Processor]]:
    """What one process is, from its start to its end."""
    output.mkdir(exist_ok=True)
    written: list[Path] = []
    processor = Processor(output, written)
    scorer = SeriesScorer(processor, PostProcessing(), output, volumes=False, dicom=None)  # type: ignore[arg-type]
    with closing(Book(output)) as book:
        spool = Spool(output, *limits)
        brings = NoSource() if source is None else source(book, spool)
        service = Service(output, book, spool, scorer, written, settings or Settings(), brings, destination)
        yield service, spool, book, processor


def work(service: Service, steps: int = 30) -> None:
    """Let it work until nothing is left that can be done at once."""
    for _ in range(steps):
        if not service.step():
            return


def receive(spool: Spool, *slices: tuple[int, int], **tags: object) -> None:
    """Put slices of studies into a spool, as a sender's files come in."""
    for study, index in slices:
        spool.put(f"{UID}.{study}", f"{UID}.{study}.1", f"{UID}.{study}.1.{index}", slice_of(study, index, **tags))


def lines_of(output: Path, name: str) -> list[str]:
    """The rows of one of the tables."""
    return (output / f"{name}.jsonl").read_text().splitlines()
