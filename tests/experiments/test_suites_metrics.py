"""What a number over the epochs is made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autolora.attacks import PGD
from autolora.experiments.loss_terms import loss_terms
from autolora.experiments.suites.metrics import metric
from autolora.methods import METHODS, Batch
from autolora.models import RobustModel
from autolora.models.robust import Architecture, Normalize
from autolora.threat import ThreatModel

COMMON = {
    **{"epoch": 3, "lr": 0.01, "val_natural": 0.7, "val_robust": 0.4, "seconds": 30.0, "images_per_second": 80.0},
    **{"waiting": 0.1, "gs_eq8": 0.5, "gs_eq8_se": 0.1, "gs_images": 256, "gs_seconds": 8.0},
}


class Backbone(nn.Module):
    """A convolution to adapt behind a stem, with a norm to freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
        self.pretrained_cfg = {"first_conv": "conv1", "classifier": "fc"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer1(self.bn1(self.conv1(x)).relu()).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("terms", "beside", "expected"),
    [
        ({"natural": 0.5, "consistency": 0.25}, {}, 0.75),  # LoFT, vanilla robust fine-tuning
        ({"natural": 0.4, "adversarial": 0.8, "consistency": 0.1}, {"lambda1": 0.4, "lambda2": 3.5}, 1.3),
        ({"natural": 0.4, "adversarial": 0.8, "consistency": 0.1}, {"natural_accuracy": 0.6}, 1.3),
        ({"adversarial": 1.5}, {}, 1.5),
        ({"adaptive-natural": 1, "adaptive-consistency": 2, "frozen-natural": 4, "frozen-consistency": 8}, {}, 15),
    ],
)
def test_the_loss_is_the_sum_of_its_terms(terms: dict[str, float], beside: dict[str, float], expected: float) -> None:
    loss = metric("loss")
    assert loss.of_epoch({**beside, **terms, **COMMON}) == pytest.approx(expected)
    first, last = ({**beside, **COMMON, **{name: factor * value for name, value in terms.items()}} for factor in (2, 1))
    assert loss.of_epochs([first, last]) == pytest.approx(expected)  # the last epoch's


def test_a_line_without_a_loss_has_none() -> None:
    assert metric("loss").of_epoch(COMMON) is None


@pytest.mark.parametrize("name", METHODS)
def test_the_terms_of_every_method_are_found_in_its_log(name: str) -> None:
    """What ``loss`` names, and nothing that the method measures beside it."""
    architecture = Architecture("none", "fc", (3, 8, 8))
    model = RobustModel(Normalize((0.5,) * 3, (0.5,) * 3), Backbone(), nn.Linear(4, 3), architecture)
    method = METHODS[name](PGD(ThreatModel("8/255"), steps=1))
    method.prepare(model)
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    terms = {term: value.item() for term, value in method.loss(model, Batch(x, y, x)).items()}
    row = {**method.gauges(), **terms, **{key: value.item() for key, value in method.measures().items()}, **COMMON}
    assert loss_terms([row]) == list(terms)
    assert metric("loss").of_epoch(row) == pytest.approx(sum(terms.values()))
