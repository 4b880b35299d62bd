"""Errors that are meant for users, and what of an error a command line shows."""

import errno
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from anomalib_medical.io import ImageReadError, counted

# What the system says of a folder that cannot be made or written; EEXIST if a file is in the folder's place.
_UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})

# What it says of a full disk, a used up quota or a file larger than it allows.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Lightning's, of an accelerator that was asked for by its name.
_NO_GPU = re.compile(r"No supported gpu backend found|`(CUDA|MPS|XLA)Accelerator` can not run on your system")
# Of torch, with a line for every tensor.
_UNFIT = re.compile(r"Error\(s\) in loading state_dict for (\w+):\s*(.*)")

_UNION_ERROR = re.compile(
    r"Does not validate against any of the Union subtypes\n.*?^ *Errors:\n(?P<reasons>.*?)^ *Given value",
    re.DOTALL | re.MULTILINE,
)


class MedicalError(Exception):
    """An expected failure; its message tells users all they need.

    Subclasses take the finished message as their only argument: a DataLoader worker's error is rebuilt from it.
    """


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Say which extra of this package brings what an import inside the block does not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        msg = f"This needs {error.name}, which is not installed: pip install 'anomalib-medical[{extra}]'"
        raise MedicalError(msg) from error


def is_user_error(error: Exception) -> bool:
    """Whether `error` tells users about their input, so that a traceback would only bury its message.

    Files that cannot be read or written, impossible settings and failed pipelines do. A `ValueError` or `ImportError`
    does if anomalib or this package raised it: from deeper down it is more likely a mistake of ours.
    """
    if isinstance(error, (OSError, MedicalError, ImageReadError, *_theirs())):
        return True
    if _refused_arguments(error) or (isinstance(error, RuntimeError) and _UNFIT.match(str(error))):
        return True
    return isinstance(error, ValueError | ImportError) and _raised_in(error.__traceback__) in {
        "anomalib",
        "anomalib_medical",
    }


def user_message(error: Exception) -> str:
    """The message of a user error, without a worker's traceback and with a way out where a file cannot be written."""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is not None:
        return (
            f"{os.strerror(error.errno)}: {os.fsdecode(error.filename)}. Results need a folder that can be written: "
            "make this one writable, or choose another with --default_root_dir."
        )
    if isinstance(error, OSError) and error.errno in FULL:
        where = "the folder of the results" if error.filename is None else os.fsdecode(error.filename)
        return (
            f"{os.strerror(error.errno)}: {where}. What was being written is not complete. Make room, or choose "
            "another folder with --default_root_dir."
        )
    if isinstance(error, _theirs()) and _NO_GPU.search(str(error)):
        return _no_gpu()
    if unfit := _UNFIT.match(str(error)):
        return (
            f"The checkpoint does not fit this {unfit[1]} ({unfit[2][:200]}). Give --model the class and the arguments "
            "that were trained with."
        )
    return "; ".join(_refused_arguments(error)) or _without_worker_traceback(error)


def _no_gpu() -> str:
    import torch  # which has been loaded to look for one

    why = "look whether `nvidia-smi` shows one, and whether its driver is new enough for this torch"
    if torch.version.cuda is None and torch.version.hip is None:
        why = "it is built for the CPU alone"
    return (
        f"--trainer.accelerator asks for a GPU, and torch {torch.__version__} finds none on this machine: {why}. "
        "Without one: --trainer.accelerator auto."
    )


def out_of_memory(train_batch_size: int | None, eval_batch_size: int | None) -> MedicalError:
    """What to do where a GPU has no memory left for batches of so many images; None for what was not used or known."""
    size = eval_batch_size if train_batch_size is None else train_batch_size
    half = None if size is None or size < 2 else size // 2
    ways = [shell_argument("trainer.precision", "bf16-mixed"), "a smaller --model.image_size"]
    if half is not None and train_batch_size is None:
        ways.insert(0, f"{shell_argument('data.eval_batch_size', half)}, halved until it fits")
    elif half is not None:
        accumulate = shell_argument("trainer.accumulate_grad_batches", -(-size // half))  # type: ignore[operator]  # it has a half
        ways.insert(
            0, f"{shell_argument('data.train_batch_size', half)} {accumulate}, halved and doubled until it fits"
        )
        ways.append("in its validation --data.eval_batch_size")
    batches = "" if size is None else f" with batches of {counted(size, 'image')}"
    what = "scoring" if train_batch_size is None else "training"
    return MedicalError(
        f"The GPU ran out of memory in {what}{batches}. Nothing that was saved is lost. Try {', or '.join(ways)}; "
        "`nvidia-smi` shows who else uses it."
    )


def shell_argument(name: str, value: object) -> str:
    """Write an argument as it can be pasted into a shell: ``--model.noise_size '[0.1,0.4]'``.

    Text is written as it is, anything else as jsonargparse reads it (null, true, lists, objects).
    """
    text = str(value)
    if not isinstance(value, str | os.PathLike):
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # A value that starts with a dash would be taken for another argument.
    return f"--{name}{'=' if text.startswith('-') else ' '}{shlex.quote(text)}"


def _theirs() -> tuple[type[Exception], ...]:
    """Errors of anomalib and Lightning that mean users, as far as these are loaded: importing them takes seconds."""
    places = (
        ("anomalib.models", "UnknownModelError"),
        ("lightning.fabric.utilities.exceptions", "MisconfigurationException"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in places if module in sys.modules)


def _refused_arguments(error: Exception) -> list[str]:
    """What a class said of arguments from the command line, which jsonargparse buries in a message of its own."""
    found = _UNION_ERROR.match(str(error)) if isinstance(error, ValueError) else None
    if found is None:
        return []
    reasons = [reason.strip() for reason in re.split(r"^ *- ", found["reasons"], flags=re.MULTILINE)]
    return [" ".join(reason.split()) for reason in reasons if reason and not reason.startswith("Expected a <class")]


def _without_worker_traceback(error: Exception) -> str:
    """Undo torch's wrapping of a DataLoader worker's error, whose message holds the formatted traceback."""
    message = str(error)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if not message.startswith(f"Caught {kind.__name__} "):
        return message
    _, found, original = message.rpartition(f"\n{name}: ")
    return original.rstrip() if found else message


def _raised_in(traceback: TracebackType | None) -> str:
    """Name of the top-level package in which the exception was raised."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name.partition(".")[0]
