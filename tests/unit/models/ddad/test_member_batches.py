"""The batches that the networks draw."""

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from torchvision.transforms import v2

from anomalib_medical import MedicalFolder
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.ddad import member_batches
from anomalib_medical.models.ddad.member_batches import Images, MemberBatches, is_random, read_images
from anomalib_medical.models.ddad.torch_model import A, B
from tests.conftest import make_folder


def make(count=23, normals=14, batch_size=4, **kwargs):
    """Images whose pixels are their row."""
    grey = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 1, 2, 2)
    known_normal = torch.zeros(count, dtype=torch.bool)
    known_normal[torch.randperm(count, generator=torch.Generator().manual_seed(5))[:normals]] = True
    return MemberBatches(Images(grey, known_normal), batch_size, **{"members": 3, "seed": 0} | kwargs)


def epoch_of(batches, module, member, epoch, steps):
    return [row for step in range(steps) for row in batches.rows(module, member, epoch, step).tolist()]


def test_a_module_passes_once_over_its_own_images():
    batches = make()
    assert batches.steps == (5, 3)
    normals = set(batches.images.known_normal.nonzero().flatten().tolist())
    for member in range(3):
        for epoch in range(2):
            rows = epoch_of(batches, A, member, epoch, 5)
            assert len(rows) == len(set(rows)) == 20
            rows = epoch_of(batches, B, member, epoch, 3)
            assert len(rows) == len(set(rows)) == 12
            assert set(rows) <= normals


def test_processes_take_turns_in_the_orders_of_one():
    alone = make(batch_size=6)
    ranks = [make(batch_size=3, rank=rank, processes=2) for rank in range(2)]
    assert ranks[0].steps == ranks[1].steps == alone.steps == (3, 2)
    for module, steps in enumerate(alone.steps):
        for member in range(3):
            for step in range(steps):
                both = [row for rank in ranks for row in rank.rows(module, member, 1, step).tolist()]
                assert both == alone.rows(module, member, 1, step).tolist()


def test_processes_refine_on_images_and_patches_of_their_own():
    first, second = (make(normals=17, rank=rank, processes=2) for rank in range(2))
    assert first.steps_of_refinement == 1
    drawn, other = first.refinement(0, 0), second.refinement(0, 0)
    assert len(drawn[0]) == len(other[0]) == 8
    assert not set(drawn[0].flatten().tolist()) & set(other[0].flatten().tolist())
    assert drawn[2].initial_seed() != other[2].initial_seed()


def test_processes_share_less_than_a_batch_each():
    ranks = [make(count=9, normals=5, batch_size=8, rank=rank, processes=2) for rank in range(2)]
    assert ranks[0].steps == (1, 1)
    assert [len(rank.rows(B, 0, 0, 0)) for rank in ranks] == [2, 2]
    with pytest.raises(MedicalError, match="There are 3 known normal images for 2 devices"):
        make(count=9, normals=3, processes=2)


def test_after_its_pass_a_module_waits_for_the_other():
    batches = make()
    assert batches.draw(B, 0, 2) is not None
    assert batches.draw(B, 0, 3) is None
    assert batches.draw(A, 0, 4) is not None
    assert batches.draw(A, 0, 5) is None


def test_every_member_has_an_order_of_its_own_and_another_in_every_epoch():
    batches = make()
    orders = [
        str(epoch_of(batches, module, member, epoch, 3))
        for module in (A, B)
        for member in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == len(orders)
    drawn = batches.draw(A, 0, 0)
    assert drawn.shape == (3, 4, 1, 2, 2)
    assert len({tuple(batch[:, 0, 0, 0].tolist()) for batch in drawn}) == 3


def test_batches_follow_from_seed_epoch_and_step_alone():
    once, again = make(), make()
    once.draw(A, 0, 0)  # earlier draws do not matter
    assert torch.equal(once.draw(A, 7, 3), again.draw(A, 7, 3))
    assert torch.equal(once.draw(B, 7, 2), again.draw(B, 7, 2))
    for first, second in zip(once.refinement(7, 0)[:2], again.refinement(7, 0)[:2], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(make(seed=1).draw(A, 7, 3), again.draw(A, 7, 3))


def test_the_refinement_sees_known_normals_and_patches_from_others():
    batches = make()
    normals = set(batches.images.known_normal.nonzero().flatten().tolist())
    assert batches.steps_of_refinement == 1
    drawn = set()
    for epoch in range(40):
        images, foreign, _ = batches.refinement(epoch, 0)
        own, others = (part[:, 0, 0, 0].int().tolist() for part in (images, foreign))
        assert len(own) == 8
        assert set(own) | set(others) <= normals
        assert all(first != second for first, second in zip(own, others, strict=True))
        drawn |= set(others)
    assert drawn == normals


def test_fewer_images_than_a_batch_are_one_batch():
    batches = make(count=9, normals=3, batch_size=64)
    assert (*batches.steps, batches.steps_of_refinement) == (1, 1, 1)
    assert batches.draw(A, 0, 0).shape[1] == 9
    assert batches.draw(B, 0, 0).shape[1] == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"batch_size": 1}, "train_batch_size is 1"),
        ({"normals": 1}, "There is 1 known normal"),
        ({"normals": 0}, "There are 0 known normal"),
    ],
)
def test_batches_too_small_for_batch_normalisation_are_refused(arguments, told):
    with pytest.raises(MedicalError, match=told):
        make(**arguments)


def loader_of(root, **kwargs):
    data = MedicalFolder(root=root, train_batch_size=3, num_workers=0, **kwargs)
    data.setup()
    return data.train_dataloader()


@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "file"])
def test_images_are_read_in_the_order_of_their_data_set(tiny_folder, monkeypatch, limit):
    monkeypatch.setattr(member_batches, "_MEMORY_LIMIT", limit)
    loader = loader_of(tiny_folder)
    images = read_images(loader, None, (64, 64))
    assert images.grey.shape == (len(loader.dataset), 1, 64, 64)
    assert images.known_normal.all()
    for row, grey in enumerate(images.grey):
        torch.testing.assert_close(grey, loader.dataset[row].image[:1].as_subclass(torch.Tensor), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("share", "moved"), [(0.2, True), (0.3, False)])
def test_a_gpu_holds_the_images_if_they_leave_most_of_it_free(tiny_folder, monkeypatch, share, moved):
    loader = loader_of(tiny_folder)
    needed = len(loader.dataset) * 4 * 64 * 64
    to, places = torch.Tensor.to, []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (needed / share, needed / share))
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda self, *args: places.append(args[0]) or self if args[0] == torch.device("cuda", 0) else to(self, *args),
    )
    read_images(loader, None, (64, 64), "cuda:0")
    assert bool(places) == moved


def test_an_image_of_another_size_is_refused(tiny_folder):
    with pytest.raises(MedicalError, match=r"with 64x64 pixels .* built for 32x32"):
        read_images(loader_of(tiny_folder), None, (32, 32))


def test_values_that_are_not_numbers_are_refused_with_the_files_name(tiny_folder):
    loader = loader_of(tiny_folder)

    def spoil(images):
        images = images.clone()
        images[1, 0, 3, 3] = float("nan")
        return images

    with pytest.raises(MedicalError, match=r"NaN or infinite.*train_good_\d+\.png"):
        read_images(loader, spoil, (64, 64))


def test_random_augmentations_are_told_from_fixed_ones(tiny_folder):
    fixed = v2.Compose([v2.Resize((32, 32)), v2.Compose([v2.CenterCrop(16)])])
    for augmentations, random in (
        (None, False),
        (fixed, False),
        (v2.Compose([fixed, v2.RandomHorizontalFlip()]), True),
    ):
        data = MedicalFolder(root=tiny_folder, num_workers=0, train_augmentations=augmentations)
        data.setup()
        assert is_random(data.train_data.augmentations) == random


def test_batches_without_the_field_are_known_normal(tmp_path):
    root = make_folder(tmp_path)  # anomalib refuses paths that are not ASCII
    data = Folder(
        "tiny", root=root, normal_dir="train/good", abnormal_dir="test/lesion", train_batch_size=3, num_workers=0
    )
    data.setup()
    images = read_images(data.train_dataloader(), None, (64, 64))
    assert images.known_normal.all()
    assert np.isfinite(images.grey).all()
