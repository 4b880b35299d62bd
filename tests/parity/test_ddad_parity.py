"""DDAD's formulas against numbers computed once with the released ones (random tensors, no code)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_medical.models.components import reduce_map
from anomalib_medical.models.ddad.networks import NETWORKS, Ensemble, Memory, Reconstruction, addressing_entropy
from anomalib_medical.models.ddad.torch_model import discrepancies

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = {"reconstruction": "rec", "inter": "inter", "intra": "intra"}


@pytest.fixture(scope="module")
def ddad():
    return {name: torch.from_numpy(values) for name, values in np.load(FIXTURES / "ddad.npz").items()}


def reconstructions(ddad, *, with_variance):
    """The fixture's reconstructions, members first."""
    log_variance = ddad["module_b_logvar"].transpose(0, 1) if with_variance else None
    module_b = Reconstruction(ddad["module_b"].transpose(0, 1), log_variance)
    return Reconstruction(ddad["module_a"].transpose(0, 1)), module_b


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_variance", [False, True], ids=["ae", "ae_u"])
def test_scores_equal_the_released_ones(ddad, name, with_variance):
    maps = discrepancies(ddad["image"], *reconstructions(ddad, with_variance=with_variance))
    expected = ddad[f"{NAMES[name]}{'_u' if with_variance else ''}_score"]
    torch.testing.assert_close(reduce_map(getattr(maps, name), "mean"), expected, rtol=1e-5, atol=0)


def test_the_memory_recalls_what_the_released_one_does(ddad):
    memory = Memory()
    memory.slots.data = ddad["memory_slots"]
    recalled, attention = memory(ddad["latent"])
    torch.testing.assert_close(recalled, ddad["memory_output"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(attention, ddad["memory_attention"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(addressing_entropy(attention), ddad["memory_entropy"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_have_the_released_number_of_parameters(ddad, network):
    ensemble = Ensemble(network, members=2, image_size=(64, 64))
    assert sum(parameter.numel() for parameter in ensemble.parameters()) == 2 * int(ddad[f"parameters_{network}"])
