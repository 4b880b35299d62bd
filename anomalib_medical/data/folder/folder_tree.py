"""Listing `train/good`, `test/good`, `test/<class>`, `ground_truth/<class>` and the unlabeled pool."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from anomalib_medical.data.entries import NORMAL_CLASS, Entry, is_abnormal_class
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.io import FORMATS, ImageAddress, Listing, agree, composed, counted, image_stem, list_folder

logger = logging.getLogger(__name__)

EXPECTED_TREE = f"""Expected:
  <root>/train/good/*                   normal images ({FORMATS})
  <root>/test/good/*                    normal images for the test
  <root>/test/<class>/*                 abnormal images, one folder a class
  <root>/ground_truth/<class>/<stem>.*  optional: the mask of the image with the same stem
  <root>/unlabeled/*                    optional: images of which nobody knows whether they are normal
or a CSV file with the columns path, label, patient, mask, split, named by manifest=..."""

_BY_NAME, _RENAME = "Masks are found by the name without suffix, and", "Rename or remove one of them."


class Tree(NamedTuple):
    """What a folder tree holds."""

    entries: list[Entry]  # the files to read
    listing: Listing  # what was left out
    unused_masks: int  # how many masks belong to no entry


def list_tree(root: Path, unlabeled_dir: Path | None = None, *, needs_normals: bool = True) -> Tree:
    """List the files of a folder tree, or refuse it where its layout is not clear (ValueError, FileNotFoundError)."""
    normal_dir = root / "train" / NORMAL_CLASS
    listing = list_folder(normal_dir)
    if not listing.images and needs_normals:
        raise _no_normals(root, normal_dir, listing)
    images = [(normal_dir, path) for path in listing.images]
    listing += _outside_classes(root)
    for folder in _subfolders(root / "test"):
        of_class = list_folder(folder)
        images += [(folder, path) for path in of_class.images]
        listing += of_class
        if folder.name != NORMAL_CLASS and not is_abnormal_class(folder.name):
            msg = (
                f"The class folder {folder} has a name that does not say abnormal. Name it test/{NORMAL_CLASS} if its "
                f"images are normal, put it at {root / UNLABELED} if nobody knows, or else give it another name."
            )
            raise ValueError(msg)
    masks, of_masks = _masks_by_image(root)
    spelled_otherwise = {(composed(label), composed(stem)): mask for (label, stem), mask in masks.items()}
    used: dict[Path, Path] = {}
    entries = []
    for folder, path in images:
        label, stem, mask = folder.name, _stem(path, folder), None
        if label != NORMAL_CLASS:
            mask = masks.get((label, stem)) or spelled_otherwise.get((composed(label), composed(stem)))
        if mask is not None and used.setdefault(mask, path) != path:
            msg = f"{_BY_NAME} the mask {mask} belongs to both {used[mask]} and {path}. {_RENAME}"
            raise ValueError(msg)
        address = None if mask is None else ImageAddress(mask)
        entries.append(Entry(ImageAddress(path), folder.parent.name, composed(label), address, base=folder))
    pool, of_pool = list_unlabeled(root, unlabeled_dir, {path for _, path in images})
    return Tree(entries + pool, listing + of_masks + of_pool, len(masks) - len(used))


def list_unlabeled(root: Path, folder: Path | None, labelled: set[Path]) -> tuple[list[Entry], Listing]:
    """List the unlabeled pool: ``folder``, or ``<root>/unlabeled`` where that exists (a warning if it is empty).

    A pool that the user named must not be empty, and none may hold one of the labelled files.
    """
    base = folder or root / UNLABELED
    listing = list_folder(base)
    pool = listing.images
    if not pool and folder is not None:
        found = "is empty of images" if folder.is_dir() else "does not exist"
        msg = f"unlabeled_dir={folder} {found}. Name a folder of images, or leave it out to train without a pool."
        raise FileNotFoundError(f"{msg} {listing.left_out()}".strip())
    if not pool and (base.exists() or base.is_symlink()):
        # No error: most models do without a pool, and those that cannot say so.
        logger.warning("%s holds no images that can be read: there is no unlabeled pool.", base)
    known = {path.resolve() for path in labelled}
    shared = [path for path in pool if path.resolve() in known]
    if shared:
        names = ", ".join(str(path) for path in shared[:3])
        msg = (
            f"{len(shared)} of {counted(len(pool), 'unlabeled image')} {agree(len(shared), 'is', 'are')} in training "
            f"or test too, such as {names}. Whoever learns from the test images cannot be tested on them: give the "
            "pool a folder of its own."
        )
        raise ValueError(msg)
    return [Entry(ImageAddress(path), UNLABELED, UNLABELED, base=base) for path in pool], listing


def is_bare(root: Path) -> bool:
    """Whether a folder has none of the parts of a data set: images to predict, nothing to learn from."""
    return root.is_dir() and not any((root / part).is_dir() for part in ("train", "test"))


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def _stem(path: Path, folder: Path) -> str:
    relative = path.relative_to(folder)
    return str(relative.with_name(image_stem(relative)))


def _outside_classes(root: Path) -> Listing:
    """Look at what lies beside the folders of the classes, warn of images there, and return what is no image."""
    listing = Listing()
    for part in ("train", "test", "ground_truth"):
        listing += list_folder(root / part, of_masks=part == "ground_truth", deep=False)
    for folder in _subfolders(root / "train"):
        if folder.name != NORMAL_CLASS:
            listing += list_folder(folder)
    if listing.images:
        logger.warning(
            "%s: left out %s outside train/%s, test/<class> and ground_truth/<class>, such as %s. Move them there.",
            root,
            counted(len(listing.images), "image"),
            NORMAL_CLASS,
            listing.images[0],
        )
    return replace(listing, images=[])


def _masks_by_image(root: Path) -> tuple[dict[tuple[str, str], Path], Listing]:
    """Map (class, image path below the class folder without suffix) to the mask; ``<stem>_mask`` is understood too."""
    masks: dict[tuple[str, str], Path] = {}
    listing = Listing()
    for folder in _subfolders(root / "ground_truth"):
        of_class = list_folder(folder, of_masks=True)
        listing += of_class
        for path in of_class.images:
            stem = _stem(path, folder).removesuffix("_mask")
            other = masks.setdefault((folder.name, stem), path)
            if other != path:
                msg = f"{_BY_NAME} {other} and {path} are both masks of {stem}. {_RENAME}"
                raise ValueError(msg)
    return masks, listing


def _no_normals(root: Path, normal_dir: Path, listing: Listing) -> FileNotFoundError:
    if not root.is_dir():
        found = f"There is no folder {root}."
    elif not any(root.iterdir()):
        found = f"The folder {root} is empty."
    else:
        there = ", ".join(sorted(child.name for child in root.iterdir())[:10])
        found = f"No normal images in {normal_dir} ({root} holds: {there}). {listing.left_out()}".strip()
    return FileNotFoundError(f"{found} {EXPECTED_TREE}")
