r"""The shortest way from a point to a hyperplane without leaving the box [0, 1]^d (Croce and Hein, 2020, section 3.1).

.. math:: \min_\delta \lVert \delta \rVert_p \quad \text{s.t.} \quad \langle w, \delta \rangle = -v, \quad
          x + \delta \in [0, 1]^d

where :math:`v` is the value at :math:`x` of the affine function whose zeros are the hyperplane. Both norms have the
same kind of solution. Each coordinate travels towards the wall on its better side, at a speed :math:`s_i` until it gets
there: :math:`\lvert \delta_i \rvert = \min(t s_i, m_i)`, where :math:`m_i` is its way to the wall, and :math:`s_i = 1`
for Linf and :math:`\lvert w_i \rvert` for L2. The time :math:`t \ge 0` solves

.. math:: \varphi(t) = \sum_i \lvert w_i \rvert \min(t s_i, m_i) = \lvert v \rvert.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autolora.threat import Norm


def to_hyperplane(points: Tensor, normals: Tensor, values: Tensor, norm: Norm) -> Tensor:
    """Return the shortest displacements (N, D) that take points to their hyperplanes, within the box.

    If the box does not reach the hyperplane, the displacement leads to the corner of the box nearest to it.

    Args:
        points: Points (N, D) in [0, 1], in float32 or better: in 16 bits, the sums over D coordinates have no meaning.
        normals: Normals w of the hyperplanes (N, D). A point whose normal is zero stays.
        values: Values v of the affine functions at the points (N,).
        norm: What is short: the largest coordinate, or the Euclidean length.
    """
    # the hyperplane is that of any multiple; scaled to one, no square of a tiny gradient underflows
    scale = normals.abs().amax(dim=1).clamp_min(torch.finfo(normals.dtype).tiny)
    weights, gap = normals.abs() / scale[:, None], values.abs() / scale
    direction = -normals.sign() * values.sign()[:, None]
    room = torch.where(direction > 0, 1 - points, points)
    speed = torch.ones_like(weights) if norm == "Linf" else weights
    return direction * _travel(weights, speed, room, gap)


def _travel(weights: Tensor, speed: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    r"""Return the way of each coordinate (N, D), by Newton's method on phi.

    phi is concave, increasing and piecewise linear, so from t = 0 the iterates rise to the solution and reach it
    exactly, in no more steps than there are pieces. A handful is usual, each cheaper than to sort D wall times.
    """
    moving = room > 0
    while True:
        stopped = torch.where(moving, 0, weights * room).sum(dim=1)
        slope = torch.where(moving, weights * speed, 0).sum(dim=1)
        # without anything that moves, the wall is as far as one gets; 0 / 0 is such a case as well
        time = torch.where(slope > 0, (gap - stopped).clamp_min(0) / slope, torch.inf)[:, None]
        still = moving & (speed * time < room)
        if torch.equal(still, moving):
            return torch.where(moving, speed * time, room)
        moving = still
