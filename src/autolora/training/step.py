"""The module that a distributed wrapper holds: one forward per update, however many ways a method takes."""

from __future__ import annotations

from torch import nn

from autolora.methods import Batch, Losses, Method
from autolora.models import RobustModel


class Step(nn.Module):
    """A method's loss as a module.

    DistributedDataParallel synchronises gradients per forward call of the module it wraps; two calls before one
    backward break on batch norm's buffers. So the whole loss is one call, and the attack uses the bare model.

    Args:
        model: What is trained.
        method: Whose loss it is.
    """

    def __init__(self, model: RobustModel, method: Method) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, batch: Batch) -> Losses:
        """Return the named terms of the loss of one batch."""
        return self.method.loss(self.model, batch)

    def begin(self) -> None:
        """Do nothing: for a wrapper that has to be called before the parts of the model are."""
