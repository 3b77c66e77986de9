"""Ways to a hyperplane within the box, against solvers that know nothing of their closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from autolora.attacks.autoattack.projections import to_hyperplane
from autolora.threat import Norm

Vector = npt.NDArray[np.float64]
norms = pytest.mark.parametrize("norm", ["Linf", "L2"])


def problem(seed: int, dimension: int, share: float, corner: float = 0.0) -> tuple[Vector, Vector, float, float]:
    """A point, some of it at the walls, a normal, some of it zero, a value, and the most the box can make up for."""
    rng = np.random.default_rng(seed)
    point = rng.uniform(size=dimension)
    at_wall = rng.uniform(size=dimension) < corner
    point[at_wall] = rng.integers(0, 2, at_wall.sum())
    normal = rng.normal(size=dimension) * (rng.uniform(size=dimension) < 0.8)
    sign = rng.choice([-1.0, 1.0])
    reach = float((np.abs(normal) * np.where(sign * normal > 0, point, 1 - point)).sum())
    return point, normal, sign * share * reach, reach


def ours(point: Vector, normal: Vector, value: float, norm: Norm) -> Vector:
    batch = (torch.from_numpy(point)[None], torch.from_numpy(normal)[None], torch.tensor([value], dtype=torch.float64))
    return to_hyperplane(*batch, norm)[0].numpy()


def program(point: Vector, normal: Vector, value: float) -> float:
    """The least largest coordinate: a linear program in (delta, radius)."""
    one, eye = np.ones((len(point), 1)), np.eye(len(point))
    solved = linprog(
        c=[0.0] * len(point) + [1.0],
        A_ub=np.block([[eye, -one], [-eye, -one]]),
        b_ub=np.zeros(2 * len(point)),
        A_eq=np.append(normal, 0.0)[None],
        b_eq=[-value],
        bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
    )
    assert solved.fun is not None
    return float(solved.fun)


problems = given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.01, 0.99), st.sampled_from([0.0, 0.4]))


@problems
@settings(max_examples=60, deadline=None)
def test_linf_is_as_short_as_the_linear_program_finds(seed: int, dimension: int, share: float, corner: float) -> None:
    point, normal, value, reach = problem(seed, dimension, share, corner)
    assume(reach > 1e-3)
    delta = ours(point, normal, value, "Linf")
    assert normal @ delta == pytest.approx(-value, abs=1e-9)
    assert (point + delta).min() >= -1e-12 and (point + delta).max() <= 1 + 1e-12
    assert np.abs(delta).max() == pytest.approx(program(point, normal, value), abs=1e-7)


@problems
@settings(max_examples=60, deadline=None)
def test_l2_is_where_a_solver_ends(seed: int, dimension: int, share: float, corner: float) -> None:
    point, normal, value, reach = problem(seed, dimension, share, corner)
    assume(reach > 1e-2)
    delta = ours(point, normal, value, "L2")
    assert normal @ delta == pytest.approx(-value, abs=1e-9)
    assert (point + delta).min() >= -1e-12 and (point + delta).max() <= 1 + 1e-12

    def square(way: Any) -> Any:
        return way @ way, 2 * way

    constraint: Any = {"type": "eq", "fun": lambda way: normal @ way + value, "jac": lambda way: normal}
    bounds: Any = list(zip(-point, 1 - point, strict=True))
    options: Any = {"maxiter": 500, "ftol": 1e-14}
    solved: Any = minimize(
        square, np.zeros(dimension), jac=True, bounds=bounds, constraints=constraint, options=options
    )
    # a solver that has not quite met the constraint may be a little shorter, never one that is a proof against us
    assume(abs(normal @ solved.x + value) < 1e-7)
    assert np.linalg.norm(delta) == pytest.approx(np.linalg.norm(solved.x), abs=1e-5)


@norms
@pytest.mark.parametrize("seed", range(8))
def test_out_of_reach_leads_to_the_nearest_corner(norm: Norm, seed: int) -> None:
    point, normal, value, _ = problem(seed, 6, share=1.5, corner=0.3)
    delta = ours(point, normal, value, norm)
    nearest: Any = linprog(c=np.sign(value) * normal, bounds=list(zip(-point, 1 - point, strict=True)))
    assert abs(normal @ delta + value) == pytest.approx(abs(nearest.fun + abs(value)), abs=1e-9)
    moved = normal != 0
    assert np.isin((point + delta)[moved].round(12), [0, 1]).all()
    assert (delta[~moved] == 0).all()


@norms
def test_the_reach_of_the_box_itself(norm: Norm) -> None:
    point, normal, value, _ = problem(3, 6, share=1.0)
    delta = ours(point, normal, value, norm)
    assert normal @ delta == pytest.approx(-value, abs=1e-9)


def large(count: int = 6, dimension: int = 3072) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, dimension, generator=generator)
    normals = torch.randn(count, dimension, generator=generator) ** 3  # a few coordinates count for much
    shares = torch.tensor([0.001, -0.05, 0.2, -0.3, 0.4, 2.0])[:count]
    return points, normals, shares * normals.abs().sum(dim=1)


@norms
def test_images_in_single_precision(norm: Norm) -> None:
    """Bisection for the time that everything travels, in double precision."""
    points, normals, values = large()
    delta = to_hyperplane(points, normals, values, norm)
    points, normals, values = points.double(), normals.double(), values.double()
    speed = -values.sign()[:, None] * (normals.sign() if norm == "Linf" else normals)

    def way(time: Tensor) -> Tensor:
        return (points + time[:, None] * speed).clamp(0, 1) - points

    low, high = torch.zeros_like(values), torch.full_like(values, 1e15)
    for _ in range(120):
        middle = (low + high) / 2
        short = (values + (normals * way(middle)).sum(dim=1)) * values > 0
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    torch.testing.assert_close(delta.double(), way(high), atol=1e-6, rtol=1e-5)


@norms
def test_a_point_alone_and_in_a_batch(norm: Norm) -> None:
    points, normals, values = large()
    batch = to_hyperplane(points, normals, values, norm)
    for row in range(len(points)):
        alone = to_hyperplane(points[row : row + 1], normals[row : row + 1], values[row : row + 1], norm)
        torch.testing.assert_close(batch[row], alone[0], atol=1e-7, rtol=1e-5)


@norms
@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_the_scale_of_the_gradient_does_not_matter(norm: Norm, scale: float) -> None:
    points, normals, values = large()
    scaled = to_hyperplane(points, normals * scale, values * scale, norm)
    torch.testing.assert_close(scaled, to_hyperplane(points, normals, values, norm), atol=1e-6, rtol=1e-4)


@norms
def test_what_has_no_way(norm: Norm) -> None:
    """No normal, no distance, a value beyond all bounds: nothing moves, or all of it, and nothing is NaN."""
    points = torch.tensor([[0.2, 0.7], [0.2, 0.7], [0.2, 0.7], [0.0, 1.0]])
    normals = torch.tensor([[0.0, 0.0], [1.0, -2.0], [1.0, -2.0], [1.0, -2.0]])
    delta = to_hyperplane(points, normals, torch.tensor([1.0, 0.0, torch.inf, 0.5]), norm)
    torch.testing.assert_close(delta, torch.tensor([[0.0, 0.0], [0.0, 0.0], [-0.2, 0.3], [0.0, 0.0]]))
