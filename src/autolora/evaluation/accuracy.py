"""Accuracy, natural and under attack, by a verdict for every image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from autolora.attacks import PGD, Forward
from autolora.attacks.model import wrong
from autolora.evaluation.full_precision import full_precision
from autolora.evaluation.statistics import Score

Batches = Iterable[tuple[Tensor, Tensor]]  # images (N, C, H, W) in [0, 1] and labels (N,)


class Verdicts(NamedTuple):
    """What a model said of each image of a set, in the order of the set."""

    label: Tensor  # (N,) int64
    predicted: Tensor  # (N,) int64
    correct: Tensor  # (N,) bool; never true where a logit is not finite

    @property
    def score(self) -> Score:
        """Count the images that are right."""
        return Score(int(self.correct.sum()), len(self.correct))


def verdicts(
    model: Forward,
    batches: Batches,
    attack: PGD | None = None,
    *,
    searching: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Verdicts:
    """Judge every image, natural or under attack. The model must be in evaluation mode.

    Args:
        model: Images in [0, 1] to logits.
        batches: Images and labels, on the model's device.
        attack: What is done to the images first; None leaves them natural.
        searching: Form and precision that the attack searches. The verdict itself is the model's, in full precision.

    Raises:
        ValueError: If there are no batches.
    """
    parts = []
    for x, y in batches:
        if attack is not None:
            with searching():
                x = attack(model, x, y)
        with torch.no_grad(), full_precision():
            logits = model(x)
        predicted = logits.argmax(dim=1)
        parts.append([tensor.cpu() for tensor in (y, predicted, ~wrong(logits, y))])
    if not parts:
        raise ValueError("no batches to judge: an accuracy needs at least one image")
    return Verdicts(*(torch.cat(column) for column in zip(*parts, strict=True)))


def accuracy(model: Forward, batches: Batches, attack: PGD | None = None) -> Score:
    """Count the images that a model classifies right, natural or under attack. See :func:`verdicts`."""
    return verdicts(model, batches, attack).score
