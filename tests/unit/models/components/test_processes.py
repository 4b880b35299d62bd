"""What several processes agree on, on ranks that are made up."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.callbacks.predictions_file import Prediction, merge_ranks
from anomalib_medical.data.few_shot.episodes import EpisodeSampler
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.processes import check_processes, deal, undealt
from tests.conftest import make_folder


def loaders(data, processes, batch_size=2, **kwargs):
    """A loader for each process, as Lightning makes them."""
    for rank in range(processes):
        sampler = DistributedSampler(data, processes, rank, **{"shuffle": False} | kwargs)
        yield DataLoader(data, batch_size=batch_size, sampler=sampler)


def in_turns(ranks):
    rows = [[Prediction(str(image), *[""] * 5) for image in rank] for rank in ranks]
    return [row.path for row in merge_ranks(rows, None)]


@given(processes=st.integers(1, 5), extra=st.integers(0, 20), batch_size=st.integers(1, 4))
def test_every_image_is_dealt_once_and_in_turns(processes, extra, batch_size):
    data = list(range(processes + extra))
    dealt = [deal(loader) for loader in loaders(data, processes, batch_size)]
    ranks = [[int(image) for batch in loader for image in batch] for loader in dealt]
    assert [len(loader.sampler) for loader in dealt] == [len(rank) for rank in ranks]
    assert min(map(len, ranks)) > 0
    assert in_turns(ranks) == [str(image) for image in data]


def test_training_goes_on_repeating_so_that_no_process_waits_for_another():
    first, second = (deal(loader) for loader in loaders(list(range(5)), 2, shuffle=True))
    assert len(first.sampler) == len(second.sampler) == 3
    assert len(list(first)) == len(list(second))


def test_what_lightning_has_wrapped_is_dealt_too():
    ranks = []
    for rank in range(2):
        sampler = DistributedSamplerWrapper([4, 2, 0, 1, 3], num_replicas=2, rank=rank, shuffle=False)
        loader = deal(DataLoader(range(5), batch_sampler=BatchSampler(sampler, 2, drop_last=False)))
        ranks.append([each.tolist() for each in loader])
    assert ranks == [[[4, 0], [3]], [[2, 1]]]


def test_other_loaders_stay_as_they_are():
    loader = DataLoader(range(5), sampler=SequentialSampler(range(5)))
    assert list(map(int, deal(loader))) == [0, 1, 2, 3, 4]
    assert deal("whatever") == "whatever"


def test_fewer_images_than_processes_are_refused():
    (loader, *_) = loaders([0, 1], 3)
    with pytest.raises(MedicalError, match=r"2 of the images to score for 3 processes.*--trainer\.devices 2"):
        deal(loader)


def test_a_wrapped_sampler_hears_of_the_epoch():
    class Sampler(EpisodeSampler):
        def __init__(self):
            self.epoch = None

        def __len__(self):
            return 4

        def __iter__(self):
            return iter([self.epoch] * 4)

    sampler = DistributedSamplerWrapper(Sampler(), num_replicas=2, rank=1)
    deal(DataLoader(range(4), sampler=sampler))
    sampler.set_epoch(7)
    assert list(sampler) == [7, 7]
    assert sampler.epoch == 7


def test_all_processes_can_see_all_that_is_dealt():
    data = list("abcde")
    for loader in loaders(data, 2):
        assert undealt(loader.sampler) == [0, 1, 2, 3, 4]
    assert undealt(DistributedSamplerWrapper([4, 0, 2], num_replicas=2, rank=1, shuffle=False)) == [4, 0, 2]
    assert undealt(SequentialSampler(data)) == [0, 1, 2, 3, 4]


def test_batches_with_and_without_masks_keep_the_order_of_one_process(tmp_path):
    root = make_folder(tmp_path, 16, {"train/good": 4, "test/good": 3, "test/lesion": 5})
    for index in (0, 3):
        (root / "ground_truth" / "lesion" / f"test_lesion_{index:03d}.png").unlink()
    datamodule = MedicalFolder(root, eval_batch_size=2, num_workers=0)
    datamodule.setup()
    loader = datamodule.test_dataloader()
    alone = [path for batch in loader for path in batch.image_path]
    ranks = []
    for rank in range(2):
        sampler = DistributedSampler(loader.dataset, 2, rank, shuffle=False)
        batches = type(loader.batch_sampler)(sampler, 2, drop_last=False, kinds=loader.batch_sampler.kinds)
        dealt = deal(DataLoader(loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn))
        ranks.append([path for batch in dealt for path in batch.image_path])
    assert len(alone) == 8
    assert in_turns(ranks) == alone
    assert all(batch.gt_mask is not None for batch in list(loader)[:3])


def trainer(strategy, fn=TrainerFn.FITTING):
    return SimpleNamespace(world_size=2, strategy=strategy, state=SimpleNamespace(fn=fn))


def test_strategies_that_lose_a_part_of_the_model_are_refused():
    model = torch.nn.Linear(1, 1)
    check_processes(trainer(DDPStrategy()), model)
    with pytest.raises(MedicalError, match=r"got FSDPStrategy.*--trainer\.strategy ddp"):
        check_processes(trainer(FSDPStrategy()), model)
    spawn = DDPStrategy(start_method="spawn")
    with pytest.raises(MedicalError, match=r"copies of this one \(spawn\).*--trainer\.strategy ddp"):
        check_processes(trainer(spawn), model)
    check_processes(trainer(spawn, TrainerFn.TESTING), model)
    with pytest.raises(MedicalError, match=r"Linear learns nothing.*--trainer\.devices 1"):
        check_processes(trainer(DDPStrategy()), model.requires_grad_(requires_grad=False))


def test_a_step_without_a_loss_has_gradients_for_the_others():
    model = Scrd("resnet18", pre_trained=False, image_size=64)
    model._trainer = SimpleNamespace(world_size=1)
    assert model.no_loss() is None
    model._trainer = SimpleNamespace(world_size=2)
    model.no_loss().backward()
    learnt = [each for each in model.parameters() if each.requires_grad]
    assert learnt
    assert all(each.grad is not None and not each.grad.any() for each in learnt)


@pytest.mark.parametrize("seed", [0, None])
def test_processes_draw_noise_of_their_own(seed):
    model = Scrd("resnet18", pre_trained=False, image_size=64, seed=seed)
    noisy = []
    for rank in range(2):
        torch.manual_seed(0)  # which processes share
        model._trainer = SimpleNamespace(global_rank=rank, current_epoch=0)
        noisy.append(model.add_noise(torch.zeros(2, 3, 64, 64), 0))
    assert not torch.equal(*noisy)
