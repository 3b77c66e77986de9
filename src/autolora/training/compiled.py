"""Compiled graphs of what a batch spends its time on; their tensors are inputs, so that no batch compiles anew.

Two graphs, made by ``torch.compile`` when they are first called. One is the image gradient of the attacked network,
forward and backward in one. The other is a pass of the backbone in training, whichever tensors a branch hands it: one
graph for the backbone's own path, one for each branch. The loss terms are not part of it: they are a few operations
on logits, and hold numbers that change from epoch to epoch (AutoLoRa's weights), each of which would compile anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autolora.attacks import Objective
from autolora.attacks.climbing import Slope, gain_of
from autolora.models import RobustModel
from autolora.models.folding import Network

Backend = str | Callable[..., Any]  # a name that torch knows, or what makes a function of a graph

BACKEND = "inductor"


class CompiledSlope:
    """The image gradient of a model's robust path, as one graph of images, targets and the network's tensors.

    Args:
        model: What is attacked; its normalisation and head are read anew in every call.
        backend: Of ``torch.compile``.
    """

    def __init__(self, model: RobustModel, backend: Backend = BACKEND) -> None:
        self._model = model
        self._graph: Any = torch.compile(_slope, fullgraph=True, dynamic=False, backend=backend)

    def of(self, network: Network, objective: Objective) -> Slope:
        """Return the gradient for a form of the backbone, in evaluation mode."""

        @torch.no_grad()
        def slope(x_adv: Tensor, target: Tensor) -> Tensor:
            gradient: Tensor = self._graph(self._model, network.form, dict(network.tensors), objective, x_adv, target)
            return gradient

        return slope


def _slope(
    model: RobustModel,
    form: nn.Module,
    tensors: dict[str, Tensor],
    objective: Objective,
    x_adv: Tensor,
    target: Tensor,
) -> Tensor:
    def gain(images: Tensor) -> Tensor:
        features = torch.func.functional_call(form, tensors, (model.prepared(images),))
        return gain_of(lambda logits: objective(logits, target), model.head(features))

    gradient: Tensor = torch.func.grad(gain)(x_adv)
    return gradient


class CompiledPasses:
    """The passes of a backbone, compiled while a context lasts; whoever calls the backbone gets the graph.

    Args:
        backbone: What is called; only its forward is replaced, for the time being.
        backend: Of ``torch.compile``.
    """

    def __init__(self, backbone: nn.Module, backend: Backend = BACKEND) -> None:
        self._backbone = backbone
        self._forward: Any = torch.compile(backbone.forward, fullgraph=True, dynamic=False, backend=backend)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Return a context in which the backbone runs compiled, in any mode and with any tensors."""
        own = vars(self._backbone)  # past nn.Module's own __setattr__
        own["forward"] = self._forward
        try:
            yield
        finally:
            del own["forward"]
