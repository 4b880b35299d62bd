"""torch's global states make no difference."""

import pytest
import torch

from anomalib_medical.models.components import derived_seed, in_float32, seeded


def test_a_seed_fixes_what_is_drawn_and_leaves_the_users_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    drawn = []
    for parts in ((5,), (5,), (5, 1), (6,)):
        with seeded(*parts):
            drawn.append(tuple(torch.rand(3).tolist()))
    assert torch.equal(torch.rand(3), expected)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_without_a_seed_the_global_state_is_drawn_from():
    torch.manual_seed(7)
    with seeded(None):
        first = torch.rand(3)
    assert not torch.equal(first, torch.rand(3))
    torch.manual_seed(7)
    assert torch.equal(first, torch.rand(3))


def test_streams_have_their_own_seeds():
    assert len({derived_seed(*parts) for parts in ((1,), (1, 1), (1, 2), (2, 1), (2, 2))}) == 5


class Product:
    @in_float32
    def product(self, first, second, *, rows):
        assert not torch.is_autocast_enabled("cpu")
        return (first @ second)[:rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_method_computes_in_float32(dtype, autocast):
    first, second = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = Product().product(first, second, rows=3)
        assert torch.is_autocast_enabled("cpu") == autocast
    assert torch.equal(found, (first.float() @ second.float())[:3])
