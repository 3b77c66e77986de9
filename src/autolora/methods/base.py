"""What a method is: an inner maximisation, an outer minimisation, and what it adds to the model for the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeVar

from torch import Tensor

from autolora.attacks import PGD, Forward
from autolora.models import RobustModel

Losses = dict[str, Tensor]  # named terms; their sum is minimised
Accuracy = Callable[[Forward], float]  # natural accuracy in [0, 1] of a way through the model, on the training images


class Batch(NamedTuple):
    """One training batch: natural images, labels, and the adversarial images that the method's attack made of them."""

    x: Tensor  # (N, C, H, W) in [0, 1]
    y: Tensor  # (N,)
    x_adv: Tensor  # (N, C, H, W) in [0, 1]


@dataclass
class Method(ABC):
    """A way to train a robust model: one paper, one file.

    Args:
        pgd: The attack that makes adversarial training images.
    """

    pgd: PGD
    paper: ClassVar[str] = ""
    selects_on: ClassVar[Literal["robust", "natural"]] = "robust"  # the validation accuracy that picks the epoch

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the class's docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    def prepare(self, model: RobustModel) -> None:  # noqa: B027 - a method may have nothing to add
        """Add branches and choose what trains; called once, before the optimizer is made."""

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        """Make adversarial images (N, C, H, W) in S(x); the model is in evaluation mode."""
        return self.pgd(model, x, y)

    @abstractmethod
    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the terms of the loss, by the paper's names; the model is in training mode."""

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:  # noqa: B027
        """Set what depends on the model's state; called before every epoch, in evaluation mode."""

    def begin_training(self, model: RobustModel) -> None:
        """Put the model into the mode in which the loss is computed; called once an epoch, before its batches."""
        model.train()

    def gauges(self) -> dict[str, float]:
        """Return what the log shows for each epoch beside the losses, such as the loss weights."""
        return {}

    def finalize(self, model: RobustModel) -> None:
        """Remove what training added."""
        model.branches.clear()


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Make a method known by a name, in the command line and in ``METHODS``.

    Raises:
        ValueError: If the name is taken.
    """

    def add(method: M) -> M:
        if name in METHODS:
            raise ValueError(
                f"method {name!r} is registered already, by {METHODS[name].__qualname__}; take another name"
            )
        METHODS[name] = method
        return method

    return add
