"""Several adapters on one backbone in memory, chosen at each call."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from autolora.errors import InputError
from autolora.models.adapters import Adapter, State, adapted, check_backbone, check_head
from autolora.models.branches import evaluating
from autolora.models.robust import RobustModel

__all__ = ["AdapterBank"]


class AdapterBank(nn.Module):
    """Several adapters on one backbone in memory, chosen at each call; evaluation mode, whatever mode it is in.

    The backbone's tensors are the model's own, not copies; its branches and head are not used. Weights are computed
    for each call, and the gradients reach the image alone.

    Args:
        model: A model of the pre-trained weights that the adapters were trained on.
    """

    def __init__(self, model: RobustModel) -> None:
        super().__init__()
        self.model = model
        self._residents = nn.ModuleList()  # a list beside the names: the keys of a ModuleDict cannot have dots
        self._names: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order in which they were added."""
        return tuple(self._names)

    def add(self, name: str, adapter: Adapter) -> None:
        """Add an adapter under a name.

        Raises:
            InputError: If the name is taken, or the adapter has no head, or belongs to another backbone.
        """
        if name in self._names:
            raise InputError(f"adapter {name!r}: the name is taken; give another than {', '.join(self._names)}")
        check_backbone(adapter, self.model)
        check_head(adapter, self.model)
        self._residents.append(_Resident(adapter).to(next(self.model.backbone.parameters())))
        self._names.append(name)

    def forward(self, x: Tensor, adapter: str) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, K) of an adapter's own head.

        Raises:
            InputError: If there is no such adapter.
        """
        if adapter not in self._names:
            raise InputError(f"adapter {adapter!r} is unknown; use {' or '.join(self._names) or 'add() first'}")
        resident = self._residents[self._names.index(adapter)]
        assert isinstance(resident, _Resident)
        backbone = self.model.backbone
        with evaluating(backbone):
            features = functional_call(backbone, resident.tensors(backbone), (self.model.prepared(x),))
        return F.linear(features, **_tensors(resident.head))


class _Resident(nn.Module):
    """An adapter's tensors as buffers, so that they go where the backbone goes."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.scale = adapter.scale
        self.layers, self.replaced = tuple(adapter.pairs), tuple(adapter.norms)
        self.pairs = nn.ModuleList(_holder({"a": a, "b": b}) for a, b in adapter.pairs.values())
        self.norms = nn.ModuleList(_holder(state) for state in adapter.norms.values())
        self.head = _holder(adapter.head)

    def tensors(self, backbone: nn.Module) -> State:
        """Return what to run the backbone with: every parameter detached, adapted weights, this adapter's norms."""
        found = {name: parameter.detach() for name, parameter in backbone.named_parameters()}
        for name, pair in zip(self.layers, self.pairs, strict=True):
            found[f"{name}.weight"] = adapted(found[f"{name}.weight"], **_tensors(pair), scale=self.scale)
        for name, norm in zip(self.replaced, self.norms, strict=True):
            found |= {f"{name}.{key}": tensor for key, tensor in _tensors(norm).items()}
        return found


def _holder(tensors: Mapping[str, Tensor]) -> nn.Module:
    holder = nn.Module()
    for name, tensor in tensors.items():
        holder.register_buffer(name, tensor)
    return holder


def _tensors(holder: nn.Module) -> State:
    return dict(holder.named_buffers())
