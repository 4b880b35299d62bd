"""Which images are the support."""

import pytest
import torch
from PIL import Image

from anomalib_medical.models.d24fad.selection import diverse_rows
from anomalib_medical.models.d24fad.support import list_pictures_in
from anomalib_medical.models.d24fad.torch_model import D24fadError


def test_what_a_folder_of_normals_holds_beside_is_named(tmp_path, caplog):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "b.gif")
    assert [address.path.name for address in list_pictures_in(tmp_path, "support_dir")] == ["a.png"]
    assert "support_dir: Left out 1 file that is no PNG" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(D24fadError, match=r"it holds 0 images.*Left out 1 file .*\.gif: 1"):
        list_pictures_in(tmp_path, "support_dir")


def test_diverse_images_are_far_from_one_another():
    groups = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    embeddings = (groups[:, None] + 0.1 * torch.rand(3, 20, 2)).flatten(0, 1)
    state = torch.random.get_rng_state()
    for seed in range(5):
        assert {row // 20 for row in diverse_rows(embeddings, 3, seed)} == {0, 1, 2}
    assert diverse_rows(embeddings, 3, 1) == diverse_rows(embeddings, 3, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
