"""Which files are the support."""

import pytest
from PIL import Image

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
