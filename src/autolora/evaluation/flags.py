"""What makes a robust accuracy doubtful, found out by looking at the model, and written into the result.

The reference evaluation logs some of these and misses others; a number is then quoted without its warning.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from autolora.attacks import Forward
from autolora.evaluation.full_precision import full_precision

SAME = 1e-3  # largest difference of logits, relative to their size, that rounding in another order may make


@dataclass(frozen=True)
class Flag:
    """One reason for doubt.

    Args:
        name: What was found, such as ``probabilities``.
        message: What it means for the result, and what to do.
        count: On how many images.
        total: Of how many that were looked at.
    """

    name: str
    message: str
    count: int
    total: int

    def __str__(self) -> str:
        return f"{self.name} ({self.count} of {self.total} images): {self.message}"

    def as_json(self) -> dict[str, str | int]:
        """Return the flag as ``result.json`` holds it."""
        return asdict(self)


MESSAGES = {
    "input-range": "images lie outside [0, 1]: radii are in pixel units, so normalise inside the model",
    "probabilities": "the model answers with probabilities, whose gradients vanish; take its logits instead",
    "not-finite": "logits are NaN or infinite; these images count as wrong",
    "non-deterministic": "the same image gets different logits each time: attacks and verdicts depend on chance; "
    "switch dropout and random transformations off",
    "batch-dependent": "the logits of an image depend on its neighbours in the batch: batch norm is in training mode; "
    "call eval()",
    "zero-gradients": "the logits have no gradient in the image: white-box attacks are blind, and what they leave "
    "standing is no robustness",
    "black-box-stronger": "a black-box attack broke what the white-box attacks left standing: gradients are masked, "
    "or the attacks too weak",
}


@full_precision()
def preflight(model: Forward, x: Tensor, y: Tensor) -> list[Flag]:
    """Look for defects that make any attack's result worthless, on a few images.

    Args:
        model: Images to logits, in the mode in which it will be evaluated.
        x: Images (N, C, H, W), a few dozen.
        y: Their labels (N,).
    """
    with torch.no_grad():
        logits = model(x).float()
    found = {
        "input-range": ((x < 0) | (x > 1) | ~x.isfinite()).flatten(1).any(dim=1),
        "not-finite": ~logits.isfinite().all(dim=1),
        "probabilities": _probabilities(logits),
        "non-deterministic": _repeated(model, x, logits),
    }
    if not bool(found["non-deterministic"].any()):  # chance would be taken for the neighbours' influence
        found["batch-dependent"] = _alone(model, x, logits)
    found["zero-gradients"] = _without_gradient(model, x, y)
    return [flag(name, images) for name, images in found.items() if bool(images.any())]


def flag(name: str, images: Tensor) -> Flag:
    """Make the flag of a name for the images (N,) bool that it was found on."""
    return Flag(name, MESSAGES[name], int(images.sum()), len(images))


def _probabilities(logits: Tensor) -> Tensor:
    """Non-negative rows that sum to one; a single such row may be chance, so all of them must be."""
    rows = (logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-3)
    finite = logits.isfinite().all(dim=1)
    return rows if bool(finite.any()) and bool(rows[finite].all()) else torch.zeros_like(rows)


@torch.no_grad()
def _repeated(model: Forward, x: Tensor, logits: Tensor) -> Tensor:
    return _differ(model(x).float(), logits)


@torch.no_grad()
def _alone(model: Forward, x: Tensor, logits: Tensor) -> Tensor:
    """Compare with batches of other neighbours; in pairs, since one image alone is refused by some models."""
    if len(x) < 4:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    halves = [model(part) for part in x.tensor_split(max(2, len(x) // 2))]
    return _differ(torch.cat(halves).float(), logits)


def _differ(first: Tensor, second: Tensor) -> Tensor:
    size = second.nan_to_num().abs().amax(dim=1).clamp_min(1e-6)
    return (first - second).nan_to_num().abs().amax(dim=1) > SAME * size


def _without_gradient(model: Forward, x: Tensor, y: Tensor) -> Tensor:
    """Images whose logits move in no direction; a loss would also be flat where a prediction is certain."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(x).float()
        others = logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(dim=1)
        margin = (others - logits.gather(1, y.unsqueeze(1)).squeeze(1)).nan_to_num().sum()
    grad = torch.autograd.grad(margin, x, allow_unused=True)[0] if margin.requires_grad else None
    flat = torch.zeros_like(x) if grad is None else grad.nan_to_num(nan=1.0)
    return (flat.flatten(1) == 0).all(dim=1)
