"""Another precision and another order in memory say what float32 says; accumulated gradients: `test_training`."""

import pytest
import torch

from tests.helpers.graphs import TRAINING

EVERY = pytest.mark.parametrize("name", TRAINING)


def loss_of(name, change=lambda model: model, layout=torch.contiguous_format, precision=torch.float32):
    model, function, tensors = TRAINING[name]()
    change(model)
    tensors = [each.to(memory_format=layout) if torch.is_tensor(each) and each.ndim == 4 else each for each in tensors]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = function(*tensors)
    assert loss.dtype == torch.float32
    loss.backward()
    gradients = [each.grad.flatten() for each in model.model.parameters() if each.grad is not None]
    assert all(each.dtype == torch.float32 for each in gradients)
    return loss.detach(), torch.cat(gradients)


def cosine(first, second):
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


@EVERY
def test_bfloat16(name):
    """Eight bits of a number: losses are the same to 1 percent, and weights go the same way."""
    (exact, gradient), (loss, rounded) = loss_of(name), loss_of(name, precision=torch.bfloat16)
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    assert cosine(gradient, rounded) > 0.9


@EVERY
def test_channels_last(name):
    def change(model):
        model.model.to(memory_format=torch.channels_last)

    (exact, gradient), (loss, other) = loss_of(name), loss_of(name, change, torch.channels_last)
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=0)
    assert cosine(gradient, other) > 0.999
