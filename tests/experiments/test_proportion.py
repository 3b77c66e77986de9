"""A radius that is out of proportion to the images is said, once, by all that take one."""

from __future__ import annotations

import pytest
import torch

import autolora
from autolora.experiments.proportion import warn_of_proportion
from autolora.threat import Norm, ThreatModel

SMALL, LARGE = 3 * 32**2, 3 * 224**2  # whose diagonals are 55.4 and 388


@pytest.mark.parametrize(
    ("norm", "eps", "pixels", "said"),
    [
        ("L2", "8/255", SMALL, "next to no adversary"),  # the radius of Linf: a pixel moves by 0.14 grey levels
        ("L2", "128/255", SMALL, None),
        ("L2", "128/255", LARGE, "next to no adversary"),  # by 0.33
        ("L2", 3, LARGE, None),
        ("L2", 27, SMALL, None),
        ("L2", 28, SMALL, "uniform grey"),  # half of the diagonal is 27.7
        ("L2", 128, SMALL, "uniform grey"),
        ("L2", 0, SMALL, None),
        ("Linf", "8/255", SMALL, None),
        ("Linf", "127/255", SMALL, None),
        ("Linf", 0.5, SMALL, "uniform grey"),
        ("Linf", 1, LARGE, "uniform grey"),
        ("Linf", 0, SMALL, None),
    ],
)
def test_what_is_out_of_proportion(
    norm: Norm, eps: float | str, pixels: int, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_proportion(ThreatModel(eps, norm), pixels)
    assert [said in record.message for record in caplog.records if said] == [True] * bool(said)
    assert len(caplog.records) == bool(said)


def test_evaluate_in_python_says_it(caplog: pytest.LogCaptureFixture) -> None:
    model, x, y = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)), torch.rand(2, 3, 4, 4), [0, 1]
    for norm, eps in (("Linf", 0.5), ("Linf", 0.1)):
        autolora.evaluate(model, x, torch.tensor(y), attacks="pgd-1", eps=eps, norm=norm, progress=False)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "uniform grey" in record.message


def test_no_step_is_no_attack_in_python() -> None:
    with pytest.raises(autolora.InputError, match="attack=pgd-0 takes no step"):
        autolora.evaluate(torch.nn.Flatten(), torch.rand(1, 3, 1, 1), torch.tensor([0]), attacks="pgd-0")
