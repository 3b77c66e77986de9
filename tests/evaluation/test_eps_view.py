"""Distances between classes against a plain loop, and numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from autolora.evaluation import eps_view as module
from autolora.evaluation.eps_view import grey_point, view_eps
from autolora.threat import Norm, ThreatModel


def test_grey_levels_and_contrast_by_hand() -> None:
    x = torch.zeros(3, 3, 2, 2)
    x[:, :, 0] = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1)  # half of the pixels: standard deviations 0.1, 0.2, 0.3
    view = view_eps(x, torch.arange(3), 8 / 255, "Linf")
    assert view.grey_levels == pytest.approx(8) and view.contrast == pytest.approx(0.2 * 255, rel=1e-5)
    assert view.share == pytest.approx(8 / 51, rel=1e-5)
    spread = view_eps(x, torch.arange(3), 0.5, "L2")
    assert spread.grey_levels == pytest.approx(0.5 / math.sqrt(12) * 255)


@pytest.mark.parametrize(("norm", "p"), [("Linf", float("inf")), ("L2", 2.0)])
def test_distances_to_the_nearest_other_class(norm: Norm, p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(90, 3, 4, 4, generator=generator), torch.randint(3, (90,), generator=generator)
    nearest = [
        min(float((a - b).flatten().norm(p)) for b, label in zip(x, y, strict=True) if label != own)
        for a, own in zip(x, y, strict=True)
    ]
    radius = sorted(nearest)[30] / 2 + 1e-6
    view = view_eps(x, y, radius, norm)
    assert view.compared == 90 and view.nearest == pytest.approx(min(nearest), rel=1e-4)
    assert view.inseparable == sum(distance <= 2 * radius for distance in nearest) >= 31


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_inseparable_pair_shares_an_image_of_both_balls(norm: Norm) -> None:
    """What is counted is impossible indeed: the middle is in both sets."""
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    radius = float((x[0] - x[1]).flatten().norm(float("inf") if norm == "Linf" else 2.0)) / 2 + 1e-6
    assert view_eps(x, torch.tensor([0, 1]), radius, norm).inseparable == 2
    assert view_eps(x, torch.tensor([0, 1]), radius - 1e-4, norm).inseparable == 0
    middle = x.mean(dim=0, keepdim=True)
    threat = ThreatModel(radius, norm)
    for image in (x[:1], x[1:]):
        torch.testing.assert_close(threat.project(middle, image), middle)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_same_picture_under_two_labels_is_at_distance_zero(norm: Norm) -> None:
    x = torch.rand(1, 3, 8, 8).expand(2, -1, -1, -1)
    view = view_eps(x, torch.tensor([0, 1]), 0.0, norm)
    assert (view.nearest, view.inseparable) == (0.0, 2)


def test_one_class_alone_has_no_distance() -> None:
    view = view_eps(torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.long), 0.1, "Linf")
    assert view.nearest is None and view.inseparable == 0


def test_large_images_are_compared_in_a_smaller_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPERATIONS", 48 * 10**2)
    view = view_eps(torch.rand(40, 3, 4, 4), torch.arange(40) % 2, 0.1, "Linf")
    assert view.compared == 10


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_from_the_grey_point_on_every_image_can_be_made_grey(norm: Norm) -> None:
    x = torch.cat([torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.rand(2, 3, 4, 4)])
    grey = torch.full_like(x, 0.5)
    limit = grey_point(48, norm)
    torch.testing.assert_close(ThreatModel(limit, norm).project(grey, x), grey)
    assert not torch.allclose(ThreatModel(0.98 * limit, norm).project(grey, x)[:2], grey[:2], atol=1e-3)
