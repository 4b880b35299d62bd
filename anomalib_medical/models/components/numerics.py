"""What a model must not depend on, torch's random numbers and autocast, and must not wait for, a GPU's queue."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeVar

import numpy as np
import torch

Result = TypeVar("Result")


@contextmanager
def seeded(seed: int | None, *parts: int) -> Iterator[None]:
    """Draw from a seed (and numbers of a part), and leave the global random state as it was; None does neither.

    For initial weights: building a model to load a checkpoint into it leaves the user's random numbers alone.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(derived_seed(seed, *parts) if parts else seed)
        yield


def derived_seed(*parts: int) -> int:
    """Seed of one of many streams of random numbers, such as that of an epoch."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def in_float32(method: Callable[..., Result]) -> Callable[..., Result]:
    """Let a method compute in float32 whatever the autocast: its positional tensors of floats come in as such."""

    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - passed on
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        full = [value.float() if torch.is_tensor(value) and value.is_floating_point() else value for value in args]
        kind = tensors[0].device.type
        # Only where needed: a context would be a node of its own in exported graphs.
        if not torch.is_autocast_enabled(kind):
            return method(*full, **kwargs)
        with torch.autocast(kind, enabled=False):
            return method(*full, **kwargs)

    return wrapped


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers that every step needs, on its device: made once, as each copy of the host's makes it wait for a GPU."""
    with torch.inference_mode(mode=False):
        return torch.tensor(values, dtype=dtype, device=device)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a tensor of the host to a device, without waiting for what a GPU has still to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
