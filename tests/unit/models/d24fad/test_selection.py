"""Which support images are far from one another."""

import torch

from anomalib_medical.models.d24fad.selection import diverse_rows


def test_diverse_images_are_far_from_one_another():
    groups = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    embeddings = (groups[:, None] + 0.1 * torch.rand(3, 20, 2)).flatten(0, 1)
    state = torch.random.get_rng_state()
    for seed in range(5):
        assert {row // 20 for row in diverse_rows(embeddings, 3, seed)} == {0, 1, 2}
    assert diverse_rows(embeddings, 3, 1) == diverse_rows(embeddings, 3, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
