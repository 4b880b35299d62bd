"""``torch.compile`` makes one graph of each model's training, and one of each model from an image to its label."""

import pytest
import torch

from anomalib_medical import D24fad, Ddad, Scrd
from tests.helpers.graphs import SIZE, TEACHER, TRAINING, rand

# What is slow is tracing residual networks: a case of each model is enough for every day.
SLOW = {"Scrd, local", "Scrd, none", "Ddad, ae_u", "Ddad, mem_ae", "D24fad, nearest"}


def compiled(function, backend="aot_eager"):
    """One graph or an error. Traced with its way back, and run as it was traced."""
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend)


def gradients(model, loss):
    parameters = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in TRAINING]
)
def test_a_training_step_is_one_graph(name):
    results = []
    for compile_it in (False, True):
        model, function, tensors = TRAINING[name]()
        loss = (compiled(function) if compile_it else function)(*tensors)
        results.append((loss.detach(), gradients(model, loss)))
    (loss, gradient), (of_graph, its_gradient) = results
    torch.testing.assert_close(of_graph, loss, rtol=1e-5, atol=1e-6)
    assert torch.linalg.vector_norm(its_gradient - gradient) < 1e-3 * torch.linalg.vector_norm(gradient)


def few_shot(matching):
    model = D24fad(**TEACHER, matching=matching)
    model.set_support(rand(3, 3, SIZE, SIZE))
    model.recalibrate()
    return model


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Scrd(**TEACHER), id="Scrd"),
        pytest.param(lambda: Ddad(members=2, image_size=32), id="Ddad"),
        pytest.param(lambda: few_shot("aligned"), id="D24fad"),
        pytest.param(lambda: few_shot("nearest"), id="D24fad, nearest", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_from_an_image_to_its_label_is_one_graph(make):
    """Resizing, network, score and threshold."""
    model = make().eval()
    images = rand(2, 3, 80, 72)
    for expected, got in zip(model(images), compiled(model.forward, "eager")(images), strict=True):
        assert (expected is None) == (got is None)
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.xfail(strict=True, raises=torch._dynamo.exc.Unsupported, reason="a graph holds no torch.Generator")
def test_what_is_drawn_of_scrd():
    """Noise has a source of random numbers of its own, so that a resumed run draws what it would have drawn."""
    compiled(Scrd(**TEACHER).add_noise, "eager")(rand(2, 3, SIZE, SIZE), 0)


@pytest.mark.xfail(strict=True, raises=torch._dynamo.exc.Unsupported, reason="a graph holds no torch.Generator")
def test_what_is_drawn_of_the_refinement():
    """The same of patches."""
    model = Ddad(members=2, image_size=32, score="refined")
    compiled(model.model.refinement_loss, "eager")(*rand(2, 4, 1, 32, 32), torch.Generator())
