"""What Hugging Face PEFT can say about an adapter, and how: its configuration, and the names of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.adapters import Adapter, Pair, State
from autolora.models.branches import batch_norms, evaluating
from autolora.models.lowrank import LowRankUpdate, PeftUpdate
from autolora.models.robust import RobustModel

__all__ = ["from_peft", "peft_config", "peft_obstacle", "peft_tensors"]

PREFIX = "base_model.model."
ENDS = (".lora_A.weight", ".lora_B.weight")
# options under which an adapter is more than W + (alpha / r) BA on the weights that the backbone was loaded with
ALTERING = (
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "alora_invocation_tokens",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
)
PLAIN_INITS = (True, False, "gaussian", "orthogonal")  # the others change the backbone's weights as well


def peft_obstacle(model: RobustModel, updates: Mapping[str, LowRankUpdate]) -> str | None:
    """Say what PEFT cannot do with updates of a model's layers ("has no ..."), and a way out; None if it can do all.

    Args:
        model: The model, its weights not re-expressed; it is shown one image.
        updates: The updates, by layer name.
    """
    for name, update in updates.items():
        layer = model.backbone.get_submodule(name)
        if isinstance(layer, nn.Conv2d) and not isinstance(update, PeftUpdate):
            return "has no form of loralib's updates of convolutions; train with style=peft"
        if type(layer) not in (nn.Conv2d, nn.Linear):  # a subclass may do more than PEFT's own layer does
            return f"has no pair for {name}, which is a {type(layer).__name__}; leave that out of targets"
        if isinstance(layer, nn.Conv2d) and (unusual := _unusual(layer)):
            return f"has no pair for {name}, a convolution with {unusual}; leave that out of targets"
    return _stray_state(model.backbone) or _stray_name(model) or _bypassed(model, updates)


def peft_config(adapter: Adapter) -> dict[str, Any]:
    """Return PEFT's ``LoraConfig``, without the options since 0.14, at which older versions would warn."""
    assert adapter.architecture is not None and adapter.head, "an adapter of a run knows its backbone, and has a head"
    alpha = adapter.lora_alpha
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapter.architecture.name,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        # a regular expression matches whole names, where a list would match their ends
        "target_modules": "|".join(map(re.escape, adapter.pairs)),
        "modules_to_save": [adapter.classifier, *adapter.norms],
    }


def peft_tensors(adapter: Adapter) -> State:
    """Return an adapter's tensors under PEFT's names."""
    pairs = {f"{name}{end}": t for name, pair in adapter.pairs.items() for end, t in zip(ENDS, pair, strict=True)}
    saved = {adapter.classifier: adapter.head, **adapter.norms}
    whole = {f"{name}.{key}": tensor for name, state in saved.items() for key, tensor in state.items()}
    return {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in (pairs | whole).items()}


def from_peft(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapter:
    """Make an adapter of PEFT's configuration and tensors; it does not say which weights it belongs to.

    Raises:
        InputError: If they hold anything else than plain LoRA of convolutions and linear layers, all of one rank,
            modules that are saved whole, and at most one head among these.
    """
    rank, alpha = _plain(config)
    pairs, saved = _pairs(tensors, rank), _saved(tensors)
    heads = [name for name, state in saved.items() if state.keys() == {"weight", "bias"} and state["weight"].ndim == 2]
    if len(heads) > 1:
        raise InputError(f"{' and '.join(heads)} are saved whole, and only one of them can be the head")
    classifier = heads[0] if heads else ""
    head = saved.pop(classifier, {})
    return Adapter(pairs, rank, alpha, head, norms=saved, classifier=classifier)


def _unusual(layer: nn.Conv2d) -> str:
    """Name what PEFT's pair of convolutions does not do as the layer does: groups are mixed, the rest is ignored."""
    given = {
        "groups": layer.groups > 1,
        "dilation": max(layer.dilation) > 1,
        f"{layer.padding_mode} padding": layer.padding_mode != "zeros",
    }
    return " and ".join(name for name, present in given.items() if present)


def _stray_state(backbone: nn.Module) -> str | None:
    """Find running state outside batch norm, which moves in training and would be left behind."""
    norms = batch_norms(backbone)
    for name in sorted(backbone.state_dict().keys() - dict(backbone.named_parameters()).keys()):
        if name.rpartition(".")[0] not in norms and backbone.get_buffer(name).is_floating_point():
            return f"does not save {name}, which is state outside batch norm; use the whole model"
    return None


def _stray_name(model: RobustModel) -> str | None:
    """Find a module that PEFT would take for a saved one: it compares the ends of names, as strings."""
    saved = (model.architecture.classifier, *batch_norms(model.backbone))
    for name, _ in model.backbone.named_modules():
        if name not in saved and name.endswith(saved):
            return f"would take {name} for a module to save, since it ends like one; use the whole model"
    return None


@torch.no_grad()
def _bypassed(model: RobustModel, names: Iterable[str]) -> str | None:
    """Find a layer that is never called: the model reads its weight, and would miss the pair that PEFT puts there."""
    called: set[str] = set()
    hooks = [
        model.backbone.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name))
        for name in names
    ]
    try:
        with evaluating(model):
            model(torch.zeros(1, *model.architecture.input_size).to(model.normalize.mean))
    finally:
        for hook in hooks:
            hook.remove()
    missed = next((name for name in names if name not in called), None)
    return missed and f"has no way to adapt {missed}, whose weight is read past the layer; leave that out of targets"


def _plain(config: Mapping[str, Any]) -> tuple[int, float]:
    """Return r and alpha, and refuse what is not W + (alpha / r) BA."""
    if config.get("peft_type") != "LORA":
        raise InputError(f"it is of type {config.get('peft_type')!r}, and only LORA can be merged here")
    altering = [name for name in ALTERING if config.get(name)]
    if config.get("bias", "none") != "none":
        altering.append("bias")
    if config.get("init_lora_weights", True) not in PLAIN_INITS:
        altering.append("init_lora_weights")
    if altering:
        raise InputError(f"it was trained with {', '.join(altering)}, and only plain LoRA can be merged here")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1 or not 0 < alpha < math.inf:
        raise InputError(f"r={rank!r} and lora_alpha={alpha!r} are not both positive numbers; save it again")
    return rank, float(alpha)


def _pairs(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Pair]:
    """Gather A and B of every layer."""
    found: dict[str, Pair] = {}
    first, second = ENDS
    layers = [name.removesuffix(first) for name in tensors if name.endswith(first)]
    for layer in layers:
        a, b = tensors[f"{layer}{first}"], tensors.get(f"{layer}{second}")
        if b is None or not (
            a.ndim == b.ndim in (2, 4) and len(a) == b.shape[1] == rank and b.numel() == len(b) * rank
        ):
            shapes = " and ".join("none" if t is None else str(tuple(t.shape)) for t in (a, b))
            raise InputError(f"A and B of {layer} are {shapes}, no pair of rank {rank}; save it again")
        found[_inner(layer)] = (a, b)
    if not found or len(found) != sum(name.endswith(second) for name in tensors):
        raise InputError("it has no pairs, or a B without its A; save it again")
    return found


def _saved(tensors: Mapping[str, Tensor]) -> dict[str, State]:
    """Gather the modules that are saved whole, by name."""
    found: dict[str, State] = {}
    for name, tensor in tensors.items():
        if name.endswith(ENDS):
            continue
        if ".lora_" in name:
            raise InputError(f"{name} is no part of plain LoRA of convolutions and linear layers")
        module, _, key = _inner(name).rpartition(".")
        found.setdefault(module, {})[key] = tensor
    return found


def _inner(name: str) -> str:
    if not name.startswith(PREFIX):
        raise InputError(f"{name} does not begin with {PREFIX}, as the names of PEFT do; save it with PEFT")
    return name.removeprefix(PREFIX)
