"""Whether a model's outputs stand in the order of the data's classes, or in another one.

A model that was trained with its classes in another order looks as if it knew nothing, and robust on top of nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from autolora.evaluation.statistics import Discordance, Score

CLEARLY, FAR = 0.001, 0.1  # level of the test, and accuracy that the other order must bring


@dataclass(frozen=True)
class LabelOrder:
    """Accuracies in the given and in the best order of outputs, on images on which the best was not sought.

    Args:
        given: In the order of the data's classes.
        best: In the order that was best on the other images.
        discordance: Of the two on the same images; the first is the given order.
        outputs: Best order on all images: which output answers for each class, (K,).
    """

    given: Score
    best: Score
    discordance: Discordance
    outputs: tuple[int, ...]

    @property
    def wrong(self) -> bool:
        """Whether the other order is far better, and not by chance."""
        return self.best.accuracy - self.given.accuracy >= FAR and self.discordance.p < CLEARLY

    @property
    def moved(self) -> dict[int, int]:
        """Return the output that answers for a class, by class, where it is not that class's own."""
        return {label: output for label, output in enumerate(self.outputs) if label != output}


def label_order(label: Tensor, predicted: Tensor, classes: int) -> LabelOrder:
    r"""Look for the one-to-one assignment of outputs to classes under which most images are right.

    With C the confusion matrix it is the permutation :math:`\pi` with the largest :math:`\sum_k C_{k, \pi(k)}`, found
    by Jonker and Volgenant's algorithm. Chance alone makes the best of K! orders better than the given one, so it is
    sought on every other image of each class, and both orders are judged on the rest, by McNemar's test.

    Args:
        label: Class of each image, (N,), at least two images.
        predicted: Output with the largest logit, (N,).
        classes: How many classes and outputs K.
    """
    by_class = label.argsort(stable=True)
    sought, judged = by_class[::2], by_class[1::2]
    outputs = _best(label[sought], predicted[sought], classes)
    given = predicted[judged] == label[judged]
    best = predicted[judged] == outputs[label[judged]]
    return LabelOrder(
        Score(int(given.sum()), len(judged)),
        Score(int(best.sum()), len(judged)),
        Discordance.between(given, best),
        tuple(_best(label, predicted, classes).tolist()),
    )


def _best(label: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Which output each class is assigned, (K,); of orders that are as good, the one nearest to the given."""
    confusion = torch.bincount(label * classes + predicted, minlength=classes**2).view(classes, classes).numpy()
    # all the bonuses together weigh less than one image
    _, outputs = linear_sum_assignment(confusion + np.eye(classes) / (classes + 1), maximize=True)
    return torch.from_numpy(np.asarray(outputs, dtype=np.int64))
