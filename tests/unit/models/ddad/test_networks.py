"""Reconstruction networks and ensembles of them."""

import pytest
import torch

from anomalib_medical.models.ddad.networks import NETWORKS, Ensemble


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(16, 16), (32, 48)], ids=str)
def test_reconstructions_have_the_size_of_the_image(network, size):
    answer = Ensemble(network, members=2, image_size=size).eval()(images(3, 1, *size))
    assert answer.mean.shape == (2, 3, 1, *size)
    assert (answer.log_variance is not None) == (network == "ae_u")


@pytest.mark.parametrize("network", NETWORKS)
def test_members_learn_from_their_own_batch_alone(network):
    ensemble = Ensemble(network, members=2, image_size=(16, 16))
    ensemble.losses(images(2, 4, 1, 16, 16))[1].backward()
    gradients = [parameter.grad for parameter in ensemble.members[0].parameters()]
    assert not any(gradient.any() for gradient in gradients if gradient is not None)
    assert all(parameter.grad.any() for parameter in ensemble.members[1].parameters() if parameter.ndim > 1)


@pytest.mark.parametrize("network", NETWORKS)
def test_members_start_from_different_weights(network):
    first, second = Ensemble(network, members=2, image_size=(16, 16)).members
    assert not torch.equal(first.encoder[0][0].weight, second.encoder[0][0].weight)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_loss_falls_when_a_network_learns_one_batch(network):
    torch.manual_seed(0)
    ensemble = Ensemble(network, members=1, image_size=(16, 16))
    batch = images(1, 8, 1, 16, 16)
    optimizer = torch.optim.Adam(ensemble.parameters(), 5e-3)
    before = ensemble.losses(batch)[0].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = ensemble.losses(batch)[0]
        loss.backward()
        optimizer.step()
    assert loss.item() < before - 0.1


def test_the_uncertain_network_pays_for_certainty_where_it_errs():
    member = Ensemble("ae_u", members=1, image_size=(16, 16)).members[0].eval()
    batch = images(4, 1, 16, 16)
    mean, log_variance, _ = member(batch)
    expected = ((mean - batch) ** 2 / log_variance.exp() + log_variance).mean()
    torch.testing.assert_close(member.loss(batch), expected)


def test_the_memory_network_pays_for_the_entropy_of_its_addressing():
    member = Ensemble("mem_ae", members=1, image_size=(16, 16)).members[0].eval()
    batch = images(4, 1, 16, 16)
    mean, _, attention = member(batch)
    entropy = torch.distributions.Categorical(probs=attention).entropy().mean()
    torch.testing.assert_close(member.loss(batch), ((mean - batch) ** 2).mean() + 2e-4 * entropy)
