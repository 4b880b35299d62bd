"""The part of each model's training step that has weights in it: tensors in, a loss out."""

import torch

from anomalib_medical import D24fad, Ddad, Scrd
from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.models.d24fad.pairs import Pairs

SIZE = 64
TEACHER = {"backbone": "resnet18", "image_size": SIZE, "pre_trained": False, "seed": 0}


def rand(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _scrd(contrast):
    model = Scrd(**TEACHER).train()
    clean = rand(4, 3, SIZE, SIZE)
    noisy = clean.clone()
    noisy[:, :, 16:40, 16:40] += 0.5
    noisy = None if contrast == "none" else noisy
    return model, lambda a, b: model.loss_of(a, b, local=contrast == "local")[0], (clean, noisy)


def _ddad(network):
    model = Ddad(network, members=2, image_size=32).train()
    return model, lambda batches: model.model.module_b.losses(batches).sum(), (2 * rand(2, 8, 1, 32, 32) - 1,)


def _refinement():
    model = Ddad(members=2, image_size=32, score="refined").train()
    masks = torch.zeros(8, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 4:12, 4:12] = True
    return model, model.model.loss_on_patched, (2 * rand(8, 1, 32, 32) - 1, masks)


def _d24fad(matching):
    model = D24fad(**TEACHER, matching=matching).train()
    index = torch.tensor([[0, 1], [1, 2], [3, 4], [4, 0]])
    batch = MedicalImageBatch(image=rand(4, 3, SIZE, SIZE), support=rand(5, 3, SIZE, SIZE)[index], support_index=index)
    pairs = Pairs.of(batch)
    support = batch.support.flatten(0, 1)[pairs.first]
    return model, lambda *tensors: model._loss(model.model.episode(*tensors)), (rand(4, 3, SIZE, SIZE), support, pairs)


#: Each gives a model, a function of tensors, and tensors.
TRAINING = {
    "Scrd": lambda: _scrd("ratio"),
    "Scrd, local": lambda: _scrd("local"),
    "Scrd, none": lambda: _scrd("none"),
    "Ddad, ae": lambda: _ddad("ae"),
    "Ddad, ae_u": lambda: _ddad("ae_u"),
    "Ddad, mem_ae": lambda: _ddad("mem_ae"),
    "Ddad, refinement": _refinement,
    "D24fad": lambda: _d24fad("aligned"),
    "D24fad, nearest": lambda: _d24fad("nearest"),
}
