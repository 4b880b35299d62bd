"""Exact and near duplicates among images, looked for over all pairs.

An exact duplicate has the same file or the same decoded pixels. A near duplicate is the same picture stored otherwise:
compressed again, resized, brighter or darker, cropped a little, mirrored. All pairs are compared by the correlation of
32x32 thumbnails, less what a Gaussian of 4 pixels keeps of them: the coarse anatomy that all chest X-rays share would
otherwise make different patients alike. The most similar pairs are then aligned (an affine map found by OpenCV's
`findTransformECC`) and correlated at 64x64 pixels; that correlation is a pair's similarity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from anomalib_medical.data.audit_limits import MIN_SIMILARITY
from anomalib_medical.data.fingerprints import THUMBNAIL_SIZE, Fingerprint, available_cores, fingerprint_all
from anomalib_medical.io import Window

DuplicateKind = Literal["same file", "same pixels", "near", "mirrored"]

_COARSE_SIZE = THUMBNAIL_SIZE // 2
_SIGMA = 4.0
# Rows compared at once: (1024, 20000) similarities take 80 MB.
_BLOCK = 1024
# Pairs as similar as this are verified as they are, up to this many of an image.
_ALIKE = 0.85
_MOST_ALIKE = 50
# A cropped copy is among the few most similar images, if not as similar: those are aligned first.
_ALIGNABLE = 0.6
_ALIGNED = 3
_MIN_OVERLAP = 0.6
# A cropped copy is shifted and scaled. Different patients who can be made alike need turning and shearing too: the
# entries beside the map's diagonal were up to 0.003 in copies cropped by 2%, and from 0.008 on in different phantoms.
_MAX_SHEAR = 0.006
# Below half a grey level of 8 bits there is nothing to compare: any two empty slices would be duplicates.
_BLANK_STD = 0.002
# A spot of detail on an even ground, as in a volume's last slice, looks alike in all patients, more so when aligned.
_MIN_DETAIL_PIXELS = 30
_MIN_DETAIL_PIXELS_TO_ALIGN = 100


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that are one."""

    first: int  # index of an image
    second: int  # of the other, larger than the first
    kind: DuplicateKind
    similarity: float  # correlation in [-1, 1] after alignment; 1 for exact duplicates


def group_duplicates(paths: Sequence[str], *, window: Window | None = None, progress: bool = True) -> list[int]:
    """Number images so that duplicates, and duplicates of duplicates, share a number; from 0, in their order.

    An image that cannot be read is a group of its own.
    """
    records = fingerprint_all(paths, window=window, progress=progress)
    readable = [index for index, record in enumerate(records) if isinstance(record, Fingerprint)]
    fingerprints = [record for record in records if isinstance(record, Fingerprint)]
    pairs = find_duplicates(fingerprints, progress=progress)
    ends = [readable[pair.first] for pair in pairs], [readable[pair.second] for pair in pairs]
    links = coo_array((np.ones(len(pairs)), ends), shape=(len(paths), len(paths)))
    groups: list[int] = pd.factorize(connected_components(links, directed=False)[1])[0].tolist()
    return groups


def find_duplicates(
    fingerprints: Sequence[Fingerprint],
    parts: Sequence[str] | None = None,
    *,
    min_similarity: float = MIN_SIMILARITY,
    progress: bool = True,
) -> list[DuplicatePair]:
    """Find duplicates over all pairs, the most similar first.

    Of several identical images only enough pairs are returned to link them all. Blank images have no duplicates.
    With a part (such as the split) of each image only pairs of different parts are looked for.
    """
    shown = [index for index, record in enumerate(fingerprints) if not is_blank(record)]
    records = [fingerprints[index] for index in shown]
    codes = np.unique([parts[index] for index in shown], return_inverse=True)[1] if parts is not None else None
    found = {(pair.first, pair.second): pair for pair in _exact(records, codes)}
    for pair in _near(records, codes, min_similarity, progress=progress):
        if records[pair.first].pixel_digest != records[pair.second].pixel_digest:
            found.setdefault((pair.first, pair.second), pair)
    pairs = [replace(pair, first=shown[pair.first], second=shown[pair.second]) for pair in found.values()]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def is_blank(record: Fingerprint) -> bool:
    """Whether an image shows nothing, so that it is no duplicate of another."""
    return record.std < _BLANK_STD


def _exact(records: Sequence[Fingerprint], codes: NDArray[np.intp] | None) -> list[DuplicatePair]:
    """Link each image to the first identical one; given parts, to the first in each other part."""
    alike: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        alike[record.pixel_digest].append(index)
    pairs = set()
    for members in alike.values():
        if codes is None:
            pairs |= {(members[0], other) for other in members[1:]}
            continue
        for code in np.unique(codes[members]):
            first = next(member for member in members if codes[member] == code)
            pairs |= {(min(first, other), max(first, other)) for other in members if codes[other] != code}
    files = [record.file_digest for record in records]
    return [
        DuplicatePair(first, second, "same file" if files[first] == files[second] != "" else "same pixels", 1.0)
        for first, second in pairs
    ]


def _near(
    records: Sequence[Fingerprint], codes: NDArray[np.intp] | None, min_similarity: float, *, progress: bool
) -> list[DuplicatePair]:
    if not records:
        return []
    count = len(records)
    thumbnails = np.stack([record.thumbnail for record in records]).astype(np.float32)
    fine = _detail(thumbnails)
    coarse = _detail(thumbnails.reshape(count, _COARSE_SIZE, 2, _COARSE_SIZE, 2).mean(axis=(2, 4)))
    parts = np.arange(count) if codes is None else codes
    pixels = _count_detail_pixels(fine)
    coarse[pixels < _MIN_DETAIL_PIXELS] = 0
    pairs = []
    with tqdm(total=2 * count, desc="Comparing all pairs", unit="image", disable=None if progress else True) as bar:
        for mirrored in (False, True):
            candidates, closest = _candidates(coarse, parts, mirrored=mirrored, bar=bar)
            similarity = _correlate(fine, candidates, mirrored=mirrored)
            if not mirrored:  # a mirrored crop is too rare to be looked for
                alignable = (pixels >= _MIN_DETAIL_PIXELS_TO_ALIGN)[candidates].all(axis=1)
                doubtful = np.flatnonzero(closest & alignable & (similarity < min_similarity))
                # OpenCV lets other threads run meanwhile.
                with ThreadPoolExecutor(available_cores()) as pool:
                    values = pool.map(partial(_aligned, thumbnails), candidates[doubtful])
                    aligned = tqdm(
                        values, "Aligning", len(doubtful), leave=False, unit="pair", disable=None if progress else True
                    )
                    similarity[doubtful] = list(aligned)
            kind: DuplicateKind = "mirrored" if mirrored else "near"
            pairs += [
                DuplicatePair(int(first), int(second), kind, float(value))
                for (first, second), value in zip(candidates, similarity, strict=True)
                if value >= min_similarity
            ]
    return pairs


def _detail(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the coarse anatomy away and scale to norm 1, (N, S, S)."""
    detail = thumbnails - gaussian_filter(thumbnails, _SIGMA, axes=(1, 2))
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    norm = np.linalg.norm(detail, axis=(1, 2), keepdims=True)
    return np.asarray(detail / np.maximum(norm, np.finfo(np.float32).tiny), dtype=np.float32)


def _count_detail_pixels(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how many pixels would hold the energy evenly (the participation ratio), (N,)."""
    energy = detail**2
    spread = np.maximum((energy**2).sum(axis=(1, 2)), np.finfo(np.float32).tiny)
    return np.asarray(energy.sum(axis=(1, 2)) ** 2 / spread)


def _candidates(
    coarse: NDArray[np.float32], codes: NDArray[np.intp], *, mirrored: bool, bar: tqdm[object]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the pairs worth a closer look, (P, 2), and whether one is among the other's closest, (P,)."""
    count = len(coarse)
    rows = torch.from_numpy(coarse.reshape(count, -1))
    columns = torch.from_numpy(np.ascontiguousarray(coarse[:, :, ::-1]).reshape(count, -1)) if mirrored else rows
    parts = torch.from_numpy(codes)
    ranks = torch.arange(min(_MOST_ALIKE, count))
    found, closest = [], []
    for start in range(0, count, _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, count))
        similarity = rows[block] @ columns.T
        similarity[parts[block, None] == parts] = -1
        values, neighbours = similarity.topk(len(ranks), dim=1)
        close = (values >= _ALIGNABLE) & (ranks < _ALIGNED)
        row, column = ((values >= _ALIKE) | close).nonzero(as_tuple=True)
        found.append(torch.stack([block[row], neighbours[row, column]], dim=1).numpy())
        closest.append(close[row, column].numpy())
        bar.update(len(block))
    # Each pair once, with what either of its images says.
    pairs, index = np.unique(np.sort(np.concatenate(found), axis=1), axis=0, return_inverse=True)
    is_closest = np.bincount(index.reshape(-1), weights=np.concatenate(closest), minlength=len(pairs)) > 0
    return pairs, is_closest


def _correlate(fine: NDArray[np.float32], pairs: NDArray[np.intp], *, mirrored: bool) -> NDArray[np.float32]:
    """Return the correlation of each pair's detail, (P,)."""
    similarity = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), _BLOCK):
        first, second = pairs[start : start + _BLOCK].T
        others = fine[second, :, ::-1] if mirrored else fine[second]
        similarity[start : start + _BLOCK] = np.einsum("nhw,nhw->n", fine[first], others)
    return similarity


def _aligned(thumbnails: NDArray[np.float32], pair: NDArray[np.intp]) -> float:
    """Correlate the detail of two thumbnails after an affine alignment; -1 if there is none."""
    first, second = thumbnails[pair]
    start = np.eye(2, 3, dtype=np.float32)
    everywhere = np.ones(first.shape, dtype=np.uint8)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        _, warp = cv2.findTransformECC(first, second, start, cv2.MOTION_AFFINE, criteria, everywhere, 1)
    except cv2.error:  # no convergence: they are too different
        return -1.0
    if max(abs(warp[0, 1]), abs(warp[1, 0])) > _MAX_SHEAR:
        return -1.0
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(second, warp, size, flags=flags)
    inside = cv2.warpAffine(np.ones_like(second), warp, size, flags=flags) > 0.99
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5)), borderValue=1) > 0
    if inside.mean() < _MIN_OVERLAP:
        return -1.0
    details = [image - cv2.GaussianBlur(image, (0, 0), _SIGMA) for image in (first, moved)]
    return float(np.corrcoef(details[0][inside], details[1][inside])[0, 1])
