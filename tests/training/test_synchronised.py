"""Batch norm over the joined batch of several GPUs: other modules for the time of training, and the same tensors."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from autolora.attacks import PGD, Forward
from autolora.methods import AT, AutoLoRa, LoFT, TwinsAT
from autolora.methods.base import Method
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.models.robust import Architecture, Normalize
from autolora.threat import ThreatModel
from autolora.training.replicas import synchronised

PGD_1 = PGD(ThreatModel("8/255"), steps=1)


def small() -> RobustModel:
    block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), BatchNormAct2d(4), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)
    )
    return RobustModel(Normalize((0.5,) * 3, (0.2,) * 3), backbone, nn.Linear(4, 3), Architecture("n", "fc", (3, 8, 8)))


def norms(model: RobustModel) -> list[type[nn.Module]]:
    return [type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_norms_give_way_and_come_back_with_the_same_tensors_and_names() -> None:
    model = small()
    plain, names, held = norms(model), list(model.state_dict()), [*model.parameters(), *model.buffers()]
    with synchronised(model.backbone, True):
        assert all(issubclass(kind, nn.SyncBatchNorm) for kind in norms(model)) and len(norms(model)) == 3
        assert list(model.state_dict()) == names
        assert [*map(id, [*model.parameters(), *model.buffers()])] == [*map(id, held)], "what the optimizer holds"
        model.eval()
    assert norms(model) == plain and not any(module.training for module in model.modules())
    with pytest.raises(KeyboardInterrupt), synchronised(model.backbone, True):
        raise KeyboardInterrupt
    assert norms(model) == plain
    with synchronised(model.backbone, False):
        assert norms(model) == plain


METHODS: list[Method] = [AT(PGD_1), AutoLoRa(PGD_1, targets="all", statistics="dual"), LoFT(PGD_1), TwinsAT(PGD_1)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_in_evaluation_mode_every_way_through_is_the_same_function(method: Method) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = small(), torch.rand(4, 3, 8, 8)
        model.train()
        for _ in range(3):
            model(x)  # statistics that are not the first
        method = deepcopy(method)
        method.prepare(model)
    ways: list[Forward] = [model, *(partial(model.through, name) for name in model.branches)]
    with evaluating(model), torch.no_grad():
        expected = [way(x) for way in ways]
        before = Folding(model.backbone)
        with synchronised(model.backbone, True):
            with model.running(before.network(model.backbone)):
                torch.testing.assert_close(model(x), expected[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close([way(x) for way in ways], expected)
    assert before.pairs == {"2.0": "2.1"}
