"""What a method is: an inner maximisation, an outer minimisation, and what it adds to the model for the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeVar

from torch import Tensor

from autolora.attacks import PGD, Forward
from autolora.losses import cross_entropy_each, kl_each
from autolora.models import RobustModel
from autolora.models.adapters import Adapter

Losses = dict[str, Tensor]  # named terms; their sum is minimised
Pair = tuple[Tensor, Tensor]  # two losses per image, (N,) each


class Accuracy(Protocol):
    """Measures the natural accuracy of a way through the model on the training images."""

    def __call__(self, way: Forward, *, augmented: bool = True, images: int | None = None) -> float:
        """Return the accuracy in [0, 1].

        Args:
            way: Images in [0, 1] to logits.
            augmented: On augmented images in a new order, as training sees them; else as they are, in a fixed order.
            images: About how many: the first batches of that order that hold as many. None: all.
        """


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

    Attributes:
        adapter: What was trained, apart from the frozen backbone, for a method that freezes one; set by ``finalize``.
    """

    pgd: PGD
    adapter: Adapter | None = field(default=None, init=False, repr=False, compare=False)
    paper: ClassVar[str] = ""
    selects_on: ClassVar[Literal["robust", "natural"]] = "robust"  # the validation accuracy that picks the epoch
    natural_only: ClassVar[bool] = False  # whether no image is attacked in training
    keeps_adapter: ClassVar[bool] = False  # whether ``finalize`` can set ``adapter``
    # for forecasts of what a run costs, in passes of one training image through the network, forwards or backwards
    passes_of_loss: ClassVar[int | None] = None  # of ``loss`` and its gradient; None: not known
    passes_before_epoch: ClassVar[int] = 0  # of ``begin_epoch``, at most

    @property
    def fewest(self) -> int:
        """Return how many images a batch, or a part of one, has at least: one alone has no batch statistics."""
        return 2

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the class's docstring; nothing if it has none."""
        return next(iter((cls.__doc__ or "").strip().splitlines()), "")

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

    def objectives(self, model: RobustModel, batch: Batch) -> dict[str, Pair]:
        r"""Return pairs of losses whose gradients into the backbone may disagree, per image and by name.

        What every method shares is the control that matches AutoLoRa's Eq. 8: adversarial cross entropy and divergence
        from the natural predictions, both through the adversarial pass alone,

        .. math:: CE(f(x'), y) \quad \text{and} \quad KL(sg(f(x)) \| f(x'))

        The model is in evaluation mode. A method adds the pair of its own paper.
        """
        adversarial, natural = model(batch.x_adv), model(batch.x).detach()
        return {"adv-ce-vs-kl": (cross_entropy_each(adversarial, batch.y), kl_each(adversarial, natural))}

    def gauges(self) -> dict[str, float]:
        """Return what the log shows for each epoch beside the losses, such as the loss weights."""
        return {}

    def measures(self) -> dict[str, Tensor]:
        """Return means over the batch that went through ``loss`` last, beside its terms; the log shows the epoch's."""
        return {}

    def end_training(self, means: Mapping[str, float]) -> None:  # noqa: B027
        """Hear the epoch's means of terms and measures, over all images and processes, before the validation."""

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
