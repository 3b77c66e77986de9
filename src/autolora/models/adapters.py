"""What low-rank training leaves behind, apart from the backbone: pairs, head and batch norms that travel on their own.

An adapter belongs to one set of pre-trained weights, which its fingerprint names, and is merged into a model of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.branches import batch_norms
from autolora.models.lowrank import LowRankUpdate
from autolora.models.robust import Architecture, RobustModel

__all__ = [
    "Adapter",
    "adapted",
    "check_backbone",
    "check_head",
    "extract",
    "fingerprint",
    "merge",
]

State = dict[str, Tensor]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Adapter:
    r"""A finished adapter: the weight of each adapted layer is :math:`W + \frac{\alpha}{r} BA`. Tensors are on the CPU.

    Args:
        pairs: (A, B) by the backbone's layer names, in PEFT's shapes. Linear: (r, in) and (out, r). Convolution: (r,
            in, k_h, k_w) and (out, r, 1, 1).
        rank: r, the same for every layer.
        lora_alpha: alpha.
        head: ``weight`` (K, D) and ``bias`` (K,) of the last layer; empty if the adapter has none.
        norms: State of each batch norm, affine parameters and running statistics, by its name in the backbone.
        classifier: Name of the last layer in timm's model; empty if the adapter has no head.
        architecture: The backbone that it belongs to; None if its file does not say.
        mean: Normalisation of the images, per channel; empty if unknown.
        std: As ``mean``.
        fingerprint: Of the backbone's pre-trained weights, see :func:`fingerprint`; None if its file does not say.
        classes: Names of the classes, in the order of the logits; known once it was saved.
        record: Circumstances saved with it, such as the threat model and scores.
    """

    pairs: dict[str, Pair]
    rank: int
    lora_alpha: float
    head: State
    norms: dict[str, State]
    classifier: str = ""
    architecture: Architecture | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    fingerprint: str | None = None
    classes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """Factor of BA."""
        return self.lora_alpha / self.rank


def extract(model: RobustModel, updates: Mapping[str, LowRankUpdate], lora_alpha: float) -> Adapter:
    """Copy an adapter out of a model whose adapted layers have their pre-trained weights again.

    Args:
        model: Its head and batch norms are as trained, all other weights as they were before.
        updates: The trained updates, by layer name, in PEFT's form.
        lora_alpha: alpha.
    """
    norms = {name: _copy(norm.state_dict()) for name, norm in batch_norms(model.backbone).items()}
    return Adapter(
        pairs={name: (_kept(update.lora_A), _kept(update.lora_B)) for name, update in updates.items()},
        rank=next(iter(updates.values())).rank,
        lora_alpha=lora_alpha,
        head=_copy(model.head.state_dict()),
        norms=norms,
        classifier=model.architecture.classifier,
        architecture=model.architecture,
        mean=_values(model.normalize.mean),
        std=_values(model.normalize.std),
        fingerprint=fingerprint(model.backbone),
    )


def fingerprint(backbone: nn.Module) -> str:
    """Return the SHA-256 of a backbone's parameters: names, shapes, types and values.

    Buffers are left out, since the running statistics of batch norm move while everything else is frozen.
    """
    digest = hashlib.sha256()
    # sorted, since re-expressing a weight and undoing it changes the order
    for name, parameter in sorted(backbone.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def merge(adapter: Adapter, model: RobustModel, *, head: bool = False) -> None:
    """Add an adapter to a model's backbone, in place, and give its batch norms the adapter's state.

    Args:
        adapter: What to add.
        model: A model of the pre-trained weights that the adapter was trained on.
        head: Take over the adapter's head as well.

    Raises:
        InputError: If the adapter belongs to another backbone or does not fit; the model is then as it was.
    """
    check_backbone(adapter, model)
    if head:
        check_head(adapter, model, classes=model.head.out_features)
    parameters = dict(model.backbone.named_parameters())
    for name, (a, b) in adapter.pairs.items():
        weight = parameters[f"{name}.weight"]
        weight.copy_(adapted(weight, a.to(weight), b.to(weight), adapter.scale))
    for name, state in adapter.norms.items():
        model.backbone.get_submodule(name).load_state_dict(state)
    if head:
        model.head.load_state_dict(adapter.head)


def adapted(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return W + s BA, shaped like W, for a linear layer or a convolution without groups."""
    return weight + scale * (b.flatten(1) @ a.flatten(1)).view(weight.shape)


def check_backbone(adapter: Adapter, model: RobustModel) -> None:
    """Refuse a backbone that the adapter does not belong to.

    Raises:
        InputError: If architecture, weights, normalisation or shapes differ; the message says which.
    """
    own, theirs = adapter.architecture, model.architecture
    if own is not None and own.name != theirs.name:
        raise InputError(f"the adapter belongs to {own.name}, not to {theirs.name}; build the model with that name")
    other = [name for name in own.arguments if own.arguments[name] != theirs.arguments.get(name)] if own else []
    if own is not None and other:  # the same tensors may lie in another network
        raise InputError(
            f"the adapter belongs to {own.name} built with {other[0]}={own.arguments[other[0]]}, not with "
            f"{theirs.arguments.get(other[0], 'its default')}; build the model from the weights that it was trained on"
        )
    if adapter.head and adapter.classifier != theirs.classifier:
        raise InputError(
            f"the adapter has a layer {adapter.classifier!r} of its own, and the classifier of {theirs.name} is "
            f"{theirs.classifier!r}; build the model that the adapter was trained on"
        )
    if adapter.fingerprint is not None and (found := fingerprint(model.backbone)) != adapter.fingerprint:
        raise InputError(
            f"the adapter belongs to other weights of {theirs.name} (fingerprint {adapter.fingerprint[:12]}, and here "
            f"{found[:12]}); build the model from the weights and at the image size that the adapter was trained with"
        )
    normalisation = (_values(model.normalize.mean), _values(model.normalize.std))
    if adapter.mean and normalisation != (adapter.mean, adapter.std):
        raise InputError(
            f"the adapter expects images normalised with mean {adapter.mean} and std {adapter.std}, and the model has "
            f"{normalisation[0]} and {normalisation[1]}; build the model that the adapter was trained on"
        )
    for name, pair in adapter.pairs.items():
        _check_pair(name, pair, model.backbone)
    _check_norms(adapter, model.backbone)


def _check_pair(name: str, pair: Pair, backbone: nn.Module) -> None:
    layer, weight = dict(backbone.named_modules()).get(name), dict(backbone.named_parameters()).get(f"{name}.weight")
    if not isinstance(layer, nn.Conv2d | nn.Linear) or weight is None:
        raise InputError(
            f"the adapter has a pair for {name!r}, which is no convolution or linear layer of the backbone"
        )
    if getattr(layer, "groups", 1) > 1:
        raise InputError(f"{name!r} is a convolution in groups, and PEFT's pair mixes them: it cannot be merged")
    a, b = pair
    if (shape := (len(b), *a.shape[1:])) != tuple(weight.shape):
        raise InputError(f"the adapter's pair for {name!r} makes {shape}, and the weight is {tuple(weight.shape)}")


def _check_norms(adapter: Adapter, backbone: nn.Module) -> None:
    modules = dict(backbone.named_modules())
    for name, state in adapter.norms.items():
        own = modules[name].state_dict() if name in modules else {}
        if {key: t.shape for key, t in own.items()} != {key: t.shape for key, t in state.items()}:
            raise InputError(f"the adapter's state of {name!r} does not fit the backbone; build the model it is for")


def check_head(adapter: Adapter, model: RobustModel, classes: int | None = None) -> None:
    """Refuse a head that is absent or of the wrong shape; any number of classes will do unless one is given.

    Raises:
        InputError: If the adapter has no head, or one of another shape.
    """
    if not adapter.head:
        raise InputError("the adapter has no head of its own; merge it into a model whose head you train")
    rows, features = adapter.head["weight"].shape
    if features != model.head.in_features or rows != (classes or rows):
        raise InputError(
            f"the adapter's head maps {features} features to {rows} classes, and the model's "
            f"{model.head.in_features} to {model.head.out_features}; leave the head out, or build the model so"
        )


def _values(tensor: Tensor) -> tuple[float, ...]:
    return tuple(tensor.flatten().tolist())


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _copy(state: Mapping[str, Tensor]) -> State:
    return {name: _kept(tensor) for name, tensor in state.items()}
