"""The threat model: the set S(x) of images an adversary may show instead of x, and how to move in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from autolora.errors import InputError

Norm = Literal["Linf", "L2"]
Radius = str | int | float | Fraction  # what people write for eps

LARGEST_EXPONENT = 400  # beyond those of any float; 1e9999999 as a fraction would occupy a machine for minutes


def parse_radius(value: Radius, name: str = "eps") -> Fraction | float:
    """Read a radius: ``"8/255"``, ``"0.5/255"``, ``"0.03"``, a fraction or a float. Multiples of 1/255 stay exact.

    Raises:
        InputError: If it is no number, or not finite; the message calls it by ``name``.
    """
    try:
        number = _fraction(value) if isinstance(value, str) else Fraction(value)
        approximate = float(number)  # overflows where no radius is
    except (ValueError, ZeroDivisionError, OverflowError, TypeError, AttributeError):
        raise InputError(f"{name}={value!r} is not a number; write a fraction such as 8/255, or a float") from None
    if isinstance(value, Fraction) or (isinstance(value, str) and "/" in value):
        return number
    pixels = Fraction(round(number * 255), 255)
    return pixels if math.isclose(pixels, approximate, rel_tol=1e-7, abs_tol=0.0) else approximate


def format_radius(value: Radius) -> str:
    """Write a radius as people do: ``8/255`` or ``0.5/255`` for grey levels, the number otherwise."""
    radius = parse_radius(value)
    if isinstance(radius, Fraction) and (radius.denominator == 1 or math.gcd(radius.denominator, 255) > 1):
        levels = f"{float(255 * radius):.10g}"  # grey levels, which need not be whole
        if Fraction(levels) == 255 * radius:
            return f"{levels}/255"
    return str(radius)


def _fraction(text: str) -> Fraction:
    """Read a number, or the ratio of two, of which the first need not be whole: ``0.5/255``."""
    numerator, *denominator = text.split("/", maxsplit=1)
    exponent = numerator.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > LARGEST_EXPONENT:
        raise ValueError(text)
    return Fraction(numerator.strip()) / int(*denominator or ["1"])


@dataclass(frozen=True)
class ThreatModel:
    r"""The perturbations an adversary may add, and the pixel range that the result stays in.

    .. math:: S(x) = \{ x' \in [0, 1]^d : \lVert x' - x \rVert_p \le \epsilon \}

    Args:
        eps: Radius in pixel units, where images lie in [0, 1]: ``"8/255"``, a fraction or a float.
        norm: ``"Linf"`` (each channel of each pixel moves by at most eps) or ``"L2"`` (the Euclidean length of the
            whole perturbation is at most eps).

    Raises:
        InputError: If ``eps`` is no number, negative, or (Linf) larger than the pixel range; if ``norm`` is unknown.
    """

    eps: Radius  # an exact fraction or a float, once constructed
    norm: Norm = "Linf"

    def __post_init__(self) -> None:
        eps = parse_radius(self.eps)
        given = f"{self.eps:g}" if isinstance(self.eps, float) else self.eps
        if self.norm not in get_args(Norm):
            raise InputError(f"norm={self.norm!r} is not a known threat model; use one of {', '.join(get_args(Norm))}")
        if eps < 0:
            raise InputError(f"eps={given} is negative; a radius is 0 or more, such as 8/255")
        if self.norm == "Linf" and eps > 1:
            raise InputError(f"eps={given} is larger than the pixel range [0, 1]; did you mean {given}/255?")
        object.__setattr__(self, "eps", eps)

    def __str__(self) -> str:
        return f"{self.norm} {format_radius(self.eps)}"

    @property
    def radius(self) -> float:
        """Eps as a float, in pixel units."""
        return float(self.eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the image of S(x) that belongs to ``x_adv``: first into the ball around ``x``, then into [0, 1].

        Clamping to the pixel range never leaves the ball, since ``x`` itself lies in the range.

        Args:
            x_adv: Candidate images (N, C, H, W).
            x: Natural images (N, C, H, W) in [0, 1].
        """
        if self.norm == "Linf":
            return torch.minimum(torch.maximum(x_adv, x - self.radius), x + self.radius).clamp(0, 1)
        delta = x_adv - x
        shrink = (self.radius / _length(delta).clamp_min(1e-12)).clamp_max(1)
        return (x + delta * shrink).clamp(0, 1)

    def ascent(self, grad: Tensor) -> Tensor:
        """Return the steepest unit step of this norm for a gradient (N, C, H, W): its sign, or its direction.

        Where it is no number it points nowhere: an image that became none would count as one that has fallen.
        """
        if self.norm == "Linf":
            return grad.sign()
        # half precision has no 1e-12: a gradient of nothing but zeros would be divided by zero
        exact = grad.to(torch.promote_types(grad.dtype, torch.float32)).nan_to_num(nan=0.0)
        # scaled first: the squares of a saturated model's gradient underflow, and it would seem not to have any
        exact = exact / exact.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(exact.dtype).tiny)
        return (exact / _length(exact).clamp_min(1e-12)).to(grad.dtype)

    def sample(self, x: Tensor) -> Tensor:
        """Draw one image uniformly from the ball around each ``x`` (N, C, H, W), clamped to [0, 1]."""
        if self.norm == "Linf":
            return (x + torch.empty_like(x).uniform_(-self.radius, self.radius)).clamp(0, 1)
        direction = self.ascent(torch.randn_like(x))
        # P(length <= t) = (t / eps)^d for the uniform distribution on a d-dimensional ball
        share = torch.rand(len(x), device=x.device).pow(1 / x[0].numel()).view(-1, 1, 1, 1)
        return (x + self.radius * share * direction).clamp(0, 1)


def _length(images: Tensor) -> Tensor:
    """Euclidean length per image (N, 1, 1, 1)."""
    return images.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
