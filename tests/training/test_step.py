"""The module that a distributed wrapper holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models import build_model_with_cfg
from torch import Tensor

from autolora.attacks import PGD
from autolora.methods import Batch, Losses, Method
from autolora.models import RobustModel
from autolora.models.backbones import split
from autolora.models.resnet_cifar import CifarResNet
from autolora.threat import ThreatModel
from autolora.training import Step


@dataclass
class TwoTerms(Method):
    """One term that uses a branchless path, and one that uses the head's weights alone."""

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        return {"natural": model(batch.x).square().mean(), "size": model.head.weight.square().sum()}


def test_one_call_gives_the_methods_terms_and_holds_all_that_trains() -> None:
    model: RobustModel = split(
        build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=4), classes=3
    ).eval()
    method = TwoTerms(PGD(ThreatModel("8/255")))
    step = Step(model, method)
    x, y = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    losses: dict[str, Tensor] = step(Batch(x, y, x))
    torch.testing.assert_close(losses, method.loss(model, Batch(x, y, x)), rtol=0, atol=0)
    assert list(map(id, step.parameters())) == list(map(id, model.parameters()))
