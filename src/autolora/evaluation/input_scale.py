"""Whether a model's network is shown images in the scale that it was trained with.

Weights do not say how images were normalised for them. A network that is shown others still answers, only worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autolora.attacks import Forward
from autolora.evaluation.accuracy import verdicts
from autolora.evaluation.statistics import Discordance, Score, holm

CLEARLY, FAR = 0.001, 0.05  # level of the tests, after Holm, and accuracy that another scale must bring
BATCH = 32

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Scale = Callable[[Tensor], Tensor]  # images (N, 3, H, W) in [0, 1] to the same images as a network may want them


@dataclass(frozen=True)
class Rescaled:
    """What another scale of the images would do.

    Args:
        name: Of the scale.
        given: Accuracy as it is.
        rescaled: Accuracy on the same images in the other scale.
        p: Of McNemar's test, adjusted by Holm for how many scales were tried.
    """

    name: str
    given: Score
    rescaled: Score
    p: float

    @property
    def better(self) -> bool:
        """Whether the other scale is far better, and not by chance."""
        return self.rescaled.accuracy - self.given.accuracy >= FAR and self.p < CLEARLY


def scales(x: Tensor) -> dict[str, Scale]:
    """Return what networks are commonly shown, by name.

    Args:
        x: Images (N, 3, H, W) in [0, 1], whose mean and standard deviation per channel are "the data's".
    """
    mean, std = x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3)).clamp_min(1e-3)
    imagenet_mean, imagenet_std = (torch.tensor(values, device=x.device) for values in IMAGENET)
    return {
        "images in [0, 1], not normalised": lambda x: x,
        "images in [-1, 1]": lambda x: 2 * x - 1,
        "images in 0..255": lambda x: 255 * x,
        "images normalised with the data's mean and std": lambda x: (x - _wide(mean)) / _wide(std),
        "images normalised with ImageNet's mean and std": lambda x: (x - _wide(imagenet_mean)) / _wide(imagenet_std),
    }


def rescale(
    model: Forward, x: Tensor, y: Tensor, normalize: Callable[[Tensor], Tensor] | None = None
) -> list[Rescaled]:
    """Judge a model on the same images in other scales, the best first.

    Args:
        model: Images to logits; ``normalize`` is its first step.
        x: Images (N, 3, H, W) in [0, 1].
        y: Their classes (N,), in the order of the outputs.
        normalize: Its normalisation, per channel and affine. It is undone, so that the network behind it is shown the
            scales. None if the model is not known to have one.
    """
    given = _right(model, x, y)
    own = x[:1] if normalize is None else normalize(x[:1])
    right = {
        name: _right(model, _before(normalize, scale(x)), y)
        for name, scale in scales(x).items()
        if not torch.allclose(scale(x[:1]), own, atol=1e-3)  # the one that it is shown already
    }
    right["channels in the order blue, green, red"] = _right(model, x.flip(1), y)
    ps = holm([Discordance.between(given, other).p for other in right.values()])
    found = [Rescaled(name, _score(given), _score(right[name]), p) for name, p in zip(right, ps, strict=True)]
    return sorted(found, key=lambda tried: -tried.rescaled.correct)


def _before(normalize: Callable[[Tensor], Tensor] | None, shown: Tensor) -> Tensor:
    """Return what a normalisation (x - mean) / std makes ``shown`` of."""
    if normalize is None:
        return shown
    zero = normalize(torch.zeros_like(shown[:1]))  # -mean / std
    slope = normalize(torch.ones_like(shown[:1])) - zero  # 1 / std
    return (shown - zero) / slope


def _wide(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _right(model: Forward, x: Tensor, y: Tensor) -> Tensor:
    batches = ((x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, len(x), BATCH))
    return verdicts(model, batches).correct


def _score(right: Tensor) -> Score:
    return Score(int(right.sum()), len(right))
