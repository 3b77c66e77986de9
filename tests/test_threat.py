"""The set S(x): reading radii, and the geometry of the two balls."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from autolora.errors import InputError
from autolora.threat import Norm, Radius, ThreatModel, format_radius, parse_radius

quick = settings(max_examples=40, deadline=None)
norms = st.sampled_from(("Linf", "L2"))
seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(seed: int, count: int = 5) -> Tensor:
    """Images with pixels on both ends of the range too."""
    return (torch.rand(count, 3, 4, 4, generator=generator(seed)) * 1.4 - 0.2).clamp(0, 1)


def candidates(x: Tensor, seed: int, reach: float) -> Tensor:
    return x + reach * torch.randn(x.shape, generator=generator(seed + 1))


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    delta = (a.double() - b.double()).flatten(1)
    return delta.abs().amax(dim=1) if norm == "Linf" else delta.square().sum(dim=1).sqrt()


@pytest.mark.parametrize(
    ("written", "eps"),
    [
        ("8/255", Fraction(8, 255)),
        (" 8/255 ", Fraction(8, 255)),
        ("8 / 255", Fraction(8, 255)),  # as the documentation writes it; Fraction reads it from Python 3.12 on
        (Fraction(8, 255), Fraction(8, 255)),
        (8 / 255, Fraction(8, 255)),
        (float(torch.tensor(8 / 255)), Fraction(8, 255)),  # rounded to float32
        ("0.03137254901960784", Fraction(8, 255)),
        ("1/2", Fraction(1, 2)),
        ("0.5/255", Fraction(1, 510)),
        ("2.5e-1 / 255", Fraction(1, 1020)),
        (0, Fraction(0)),
        (1, Fraction(1)),
        (0.03, 0.03),
        ("0.03", 0.03),
        (0.0314, 0.0314),  # the released code's number is not 8/255, and stays what it is
        ("5e-1", 0.5),
    ],
)
def test_a_radius_is_read_as_it_is_written(written: Radius, eps: Fraction | float) -> None:
    read = ThreatModel(written).eps
    assert read == eps and type(read) is type(eps)
    assert ThreatModel(written).radius == pytest.approx(float(eps), rel=1e-15)


def test_an_l2_radius_may_exceed_the_pixel_range() -> None:
    assert ThreatModel("0.5", "L2").radius == 0.5
    assert ThreatModel("3", "L2").radius == 3
    assert ThreatModel(128 / 255, "L2").eps == Fraction(128, 255)


def test_however_it_is_written_it_is_the_same_threat() -> None:
    same = {ThreatModel("8/255"), ThreatModel(8 / 255), ThreatModel(Fraction(8, 255)), ThreatModel("16/510")}
    assert len(same) == 1
    assert len(same | {ThreatModel(8 / 255, "L2"), ThreatModel("4/255"), ThreatModel(0.0314)}) == 4


@pytest.mark.parametrize(
    ("written", "text"),
    [
        *[("8/255", "8/255"), (4 / 255, "4/255"), (0.5, "0.5"), (0, "0/255"), (1, "255/255")],
        *[("0.5/255", "0.5/255"), ("1/1020", "0.25/255"), ("1/2", "1/2"), ("1/765", "1/765")],
    ],
)
def test_a_radius_is_shown_as_people_write_it(written: Radius, text: str) -> None:
    assert format_radius(written) == text
    assert str(ThreatModel(written, "L2")) == f"L2 {text}"


@given(st.fractions(0, 3) | st.floats(0, 3))
@quick
def test_what_is_shown_reads_back_as_the_same_radius(radius: Radius) -> None:
    read = parse_radius(radius)
    assert parse_radius(format_radius(radius)) == read
    assert float(read) == pytest.approx(float(radius), rel=1e-7)


@pytest.mark.parametrize(("given", "asked"), [(8, "8/255"), ("8", "8/255"), (8.0, "8/255"), (1.5, "1.5/255")])
def test_a_radius_of_8_is_refused_with_what_was_meant(given: Radius, asked: str) -> None:
    with pytest.raises(InputError, match=f"did you mean {asked}\\?"):
        ThreatModel(given)


@pytest.mark.parametrize("given", [-1, -0.1, "-8/255", Fraction(-1, 255)])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_negative_radius_is_refused(given: Radius, norm: Norm) -> None:
    with pytest.raises(InputError, match=r"is negative; .*8/255"):
        ThreatModel(given, norm)


@pytest.mark.parametrize(
    "given",
    [
        math.nan,
        math.inf,
        -math.inf,
        "nan",
        "inf",
        "eight",
        "",
        "8/0",
        "8/255/2",
        "8 255",
        None,
        [8],
        "1e400",
        "1e99999999",
        "1e-99999999",
    ],
)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_what_is_no_number_is_refused(given: Radius, norm: Norm) -> None:
    with pytest.raises(InputError, match=r"is not a number; write .*8/255"):
        ThreatModel(given, norm)


@pytest.mark.parametrize("norm", ["linf", "l2", "L1", "Linfinity", ""])
def test_an_unknown_norm_is_refused_with_the_known_ones(norm: Norm) -> None:
    with pytest.raises(InputError, match=r"is not a known threat model; use one of Linf, L2"):
        ThreatModel("8/255", norm)


@given(norms, st.floats(0, 1), seeds, st.sampled_from((0.01, 0.3, 10.0)))
@quick
def test_the_projection_lies_in_the_set_and_stays_there(norm: Norm, eps: float, seed: int, reach: float) -> None:
    threat, x = ThreatModel(eps, norm), images(seed)
    x_adv = threat.project(candidates(x, seed, reach), x)
    assert distance(x_adv, x, norm).max() <= eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    torch.testing.assert_close(threat.project(x_adv, x), x_adv, rtol=0, atol=1e-6)


@given(norms, st.floats(0.01, 1), seeds)
@quick
def test_images_in_the_set_are_their_own_projection(norm: Norm, eps: float, seed: int) -> None:
    threat, x = ThreatModel(eps, norm), images(seed)
    delta = torch.rand(x.shape, generator=generator(seed)) - 0.5
    inside = (x + 0.99 * eps * delta / distance(delta, 0 * delta, norm).float().view(-1, 1, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-6)


@given(st.floats(0, 1), seeds)
@quick
def test_the_linf_projection_is_the_nearest_image(eps: float, seed: int) -> None:
    """S(x) is a box, where the nearest point is found pixel by pixel."""
    x = images(seed, count=1)
    outside = candidates(x, seed, 0.5)
    nearest = [
        min(max(there, here - eps, 0.0), here + eps, 1.0)
        for there, here in zip(outside.flatten().tolist(), x.flatten().tolist(), strict=True)
    ]
    projected = ThreatModel(eps).project(outside, x)
    torch.testing.assert_close(projected.flatten(), torch.tensor(nearest), rtol=0, atol=1e-6)


def test_the_l2_projection_keeps_the_direction_and_looks_at_each_image_alone() -> None:
    x = torch.full((3, 1, 1, 2), 0.5)
    outside = x + torch.tensor([[0.3, 0.4], [0.03, 0.04], [0.0, -0.3]]).view(3, 1, 1, 2)
    expected = torch.tensor([[0.56, 0.58], [0.53, 0.54], [0.5, 0.4]]).view(3, 1, 1, 2)
    torch.testing.assert_close(ThreatModel(0.1, "L2").project(outside, x), expected)


@given(norms, st.integers(-30, 10), seeds)
@quick
def test_the_ascent_is_the_best_unit_step(norm: Norm, magnitude: int, seed: int) -> None:
    """Its product with the gradient is the dual norm, which no step of unit length exceeds (Hoelder)."""
    grad = torch.randn(4, 3, 4, 4, generator=generator(seed)) * 10.0**magnitude
    step = ThreatModel("8/255", norm).ascent(grad)
    flat = grad.double().flatten(1)
    dual = flat.abs().sum(dim=1) if norm == "Linf" else flat.square().sum(dim=1).sqrt()
    ones = torch.ones(4, dtype=torch.double)
    torch.testing.assert_close(distance(step, torch.zeros_like(step), norm), ones, rtol=1e-6, atol=0)
    torch.testing.assert_close((flat * step.double().flatten(1)).sum(dim=1) / dual, ones, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_without_a_gradient_there_is_no_step(norm: Norm) -> None:
    grad = torch.zeros(2, 3, 4, 4)
    assert torch.equal(ThreatModel("8/255", norm).ascent(grad), grad)


@given(norms, st.floats(0, 1), seeds)
@quick
def test_samples_lie_in_the_set(norm: Norm, eps: float, seed: int) -> None:
    x = images(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = ThreatModel(eps, norm).sample(x)
    assert distance(sample, x, norm).max() <= eps + 1e-6
    assert sample.min() >= 0 and sample.max() <= 1


def test_linf_samples_are_uniform_in_every_pixel() -> None:
    x = torch.full((500, 1, 2, 2), 0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        delta = ThreatModel(0.2).sample(x) - x
    assert kstest((delta.flatten() / 0.4 + 0.5).numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("side", [1, 2])
def test_l2_samples_are_uniform_in_the_ball(side: int) -> None:
    """The volume within a radius t grows as t^d, so (length / eps)^d is uniform; and no direction is preferred."""
    x = torch.full((2000, 3, side, side), 0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        delta = (ThreatModel(0.2, "L2").sample(x) - x).flatten(1).double()
    dimension = delta.shape[1]
    assert kstest(((delta.norm(dim=1) / 0.2) ** dimension).numpy(), "uniform").pvalue > 1e-3
    # the second moment of one coordinate of the uniform ball is eps^2 / (d + 2)
    moments = delta.T @ delta / len(delta) * (dimension + 2) / 0.2**2
    torch.testing.assert_close(moments, torch.eye(dimension).double(), rtol=0, atol=0.15)
    assert delta.mean(dim=0).abs().max() < 0.01
