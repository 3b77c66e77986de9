"""Other ways through the same backbone: a branch says which tensors to run it with, and the backbone never knows.

A branch is used with ``torch.func.functional_call(backbone, branch.tensors(backbone), (x,))`` inside
``branch.mode(backbone)``. What its dict does not hold is the backbone's own: parameters receive their gradients, and
the running statistics of batch norm are updated in place.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy

from timm.layers.norm import (
    RmsNorm,
    RmsNorm2d,
    RmsNorm2dFp32,
    RmsNormFp32,
    SimpleNorm,
    SimpleNorm2d,
    SimpleNorm2dFp32,
    SimpleNormFp32,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autolora.errors import InputError
from autolora.models.lowrank import Pairs

__all__ = [
    "Branch",
    "DualNormBranch",
    "FrozenNormBranch",
    "JoinedBranch",
    "LowRankBranch",
    "SparingNormBranch",
    "batch_norms",
    "evaluating",
]


logger = logging.getLogger(__name__)

# timm's variants of layer and group norms are subclasses of torch's, those of root-mean-square norms are not
AFFINE_NORMS = (
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(RmsNorm, RmsNorm2d, RmsNormFp32, RmsNorm2dFp32),
    *(SimpleNorm, SimpleNorm2d, SimpleNormFp32, SimpleNorm2dFp32),
)


class Branch(nn.Module, ABC):
    """Another way through a backbone; it owns only what differs, and leaves the backbone as it is."""

    @abstractmethod
    def tensors(self, backbone: nn.Module) -> dict[str, Tensor]:
        """Return the parameters and buffers to run the backbone with, by the backbone's own names."""

    def mode(self, backbone: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which the backbone is called; by default it changes nothing."""
        return nullcontext()


class LowRankBranch(Branch):
    r"""The branch of AutoLoRa: :math:`f_{sg(\theta) + sBA}`, with sg the stopped gradient (Xu et al., 2024, eq. 5).

    A and B learn, and the backbone learns nothing from what comes through here: neither the adapted weights, nor the
    others, nor the affine parameters of its norms. The running statistics of batch norm are shared: in train mode a
    call updates them, as a call of the backbone does. At first B = 0, and the branch equals the backbone.

    Args:
        backbone: The network; read for the shapes of its layers, and not kept.
        pairs: Its layers, and the pairs that they get; None takes rank 8 in the blocks, as AutoLoRa does.

    Raises:
        InputError: If the pairs name no layer, have no form for one, or are far larger than what they update.
    """

    def __init__(self, backbone: nn.Module, pairs: Pairs | None = None) -> None:
        super().__init__()
        updates = (pairs or Pairs()).updates(backbone)
        # a list beside the names: the keys of a ModuleDict cannot have dots
        self.adapted, self.updates = tuple(updates), nn.ModuleList(updates.values())

    def tensors(self, backbone: nn.Module) -> dict[str, Tensor]:
        """Return every parameter detached, with the updates added to the adapted weights."""
        frozen = {name: parameter.detach() for name, parameter in backbone.named_parameters()}
        weights = [f"{name}.weight" for name in self.adapted]
        return frozen | {name: frozen[name] + update() for name, update in zip(weights, self.updates, strict=True)}


class DualNormBranch(Branch):
    """Norms of its own, affine parameters and running statistics (Xie et al., 2020); all else is shared.

    They start as copies of the backbone's, and learn and move independently of them. They are the batch norms of the
    backbone; where it has none, as a transformer, its layer and group norms, which have affine parameters alone.

    Raises:
        InputError: If the backbone has no norm with anything to copy.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        norms = batch_norms(backbone) or _affine_norms(backbone)
        if not norms:
            raise InputError(
                f"{type(backbone).__name__} has no norm with statistics or affine parameters, so that a branch with "
                "its own would be the backbone itself; use a backbone with norms, or another method"
            )
        self.replaced = tuple(norms)
        self.norms = nn.ModuleList(deepcopy(norm) for norm in norms.values())

    def tensors(self, backbone: nn.Module) -> dict[str, Tensor]:
        """Return this branch's parameters and buffers of every norm."""
        return {
            f"{name}.{key}": tensor
            for name, norm in zip(self.replaced, self.norms, strict=True)
            for key, tensor in (*norm.named_parameters(), *norm.named_buffers())
        }


class FrozenNormBranch(DualNormBranch):
    """The frozen net of TWINS: batch norms of its own that keep the statistics of pre-training (Liu et al., 2023).

    They normalise with their stored mean and variance even in training, and never update them. The affine parameters
    are copies that learn, as in the authors' code; weights and head are shared and learn from both nets. Without batch
    norm only those copies are left, which is said aloud: the paper's idea rests on the statistics.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        if not batch_norms(backbone):
            logger.warning(
                f"{type(backbone).__name__} has no batch norm, and so no statistics to freeze: the frozen net differs "
                "in the affine parameters of its norms alone"
            )

    def mode(self, backbone: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the replaced norms of the backbone are in eval mode."""
        return _in_eval_mode(backbone.get_submodule(name) for name in self.replaced)


class SparingNormBranch(Branch):
    """Leaves no trace in the running statistics of batch norm: in train mode a call updates copies, which are dropped.

    Raises:
        InputError: If the backbone has no batch norm with running statistics: there is nothing to spare.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.spared = tuple(batch_norms(backbone))
        if not self.spared:
            raise InputError(
                f"{type(backbone).__name__} has no batch norm with running statistics, so none can be kept from "
                "natural data; leave the option out"
            )

    def tensors(self, backbone: nn.Module) -> dict[str, Tensor]:
        """Return copies of the batch norms' buffers."""
        return {
            f"{name}.{key}": buffer.clone()
            for name in self.spared
            for key, buffer in backbone.get_submodule(name).named_buffers()
        }


class JoinedBranch(Branch):
    """Several branches as one way through the backbone; where they replace the same tensor, the last one wins.

    Args:
        parts: Branches of the same backbone.
    """

    def __init__(self, *parts: Branch) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def tensors(self, backbone: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of all parts."""
        joined: dict[str, Tensor] = {}
        for part in self._branches():
            joined |= part.tensors(backbone)
        return joined

    @contextmanager
    def mode(self, backbone: nn.Module) -> Iterator[None]:
        """Return a context in which the modes of all parts hold."""
        with ExitStack() as stack:
            for part in self._branches():
                stack.enter_context(part.mode(backbone))
            yield

    def _branches(self) -> list[Branch]:
        return [part for part in self.parts if isinstance(part, Branch)]


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Put every module into eval mode, and give each its own mode back in the end, also after an exception.

    Only the flag ``training`` is touched: ``train`` and ``eval`` are not called, which modules may have overridden.
    """
    return _in_eval_mode(model.modules())


@contextmanager
def _in_eval_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    found = [(module, module.training) for module in modules]
    try:
        for module, _ in found:
            module.training = False
        yield
    finally:
        for module, training in found:
            module.training = training


def batch_norms(backbone: nn.Module) -> dict[str, nn.Module]:
    """Find the batch norms that have running statistics: without them, a norm has no eval mode to speak of."""
    modules = backbone.named_modules()
    return {name: m for name, m in modules if isinstance(m, _BatchNorm) and m.running_mean is not None}


def _affine_norms(backbone: nn.Module) -> dict[str, nn.Module]:
    """Find the layer, group and root-mean-square norms that have affine parameters."""
    modules = backbone.named_modules()
    return {name: m for name, m in modules if isinstance(m, AFFINE_NORMS) and m.weight is not None}
