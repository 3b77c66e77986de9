r"""The network that is attacked: the same function in evaluation mode, with fewer operations and no weight gradients.

An attack evaluates the model a dozen times per batch, with weights that do not change meanwhile, and wants gradients of
the image alone. So batch norm, an affine map in evaluation mode, is folded into the convolution before it, once per
batch:

.. math:: s \,(W * x - \mu) + b = (s W) * x + (b - s \mu), \qquad s = \gamma / \sqrt{\sigma^2 + \epsilon}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """A form of a backbone, apart from the tensors that it runs with: a compiled graph takes them as its inputs.

    Args:
        form: The structure; may be without tensors of its own.
        tensors: Parameters and buffers, detached, by the form's names.
    """

    form: nn.Module
    tensors: Mapping[str, Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Map prepared images (N, C, H, W) to features (N, D)."""
        features: Tensor = functional_call(self.form, dict(self.tensors), (x,))
        return features


class Folding:
    """How to fold a backbone; found once, by tracing which norm follows which convolution.

    A backbone that cannot be traced, or has nothing to fold, is run as it is: the result is the same.

    Args:
        backbone: The network; its structure must not change afterwards, but for norms that give way to synchronised
            ones; its tensors may.
        in_place: The tensors of a network lie where those of the network before lay, which is overwritten, so that a
            graph that was captured with one of them can be replayed with the next.
        apart: The form is never the backbone itself, whose modules may be given hooks that no attack should set off.
    """

    def __init__(self, backbone: nn.Module, in_place: bool = False, apart: bool = False) -> None:
        self.pairs: dict[str, str] = {}  # convolution -> the norm that is folded into it
        self.skeleton: nn.Module | None = None
        self._held: dict[str, Tensor] | None = {} if in_place else None
        try:
            plain = _plain(backbone)
            traced = fx.symbolic_trace(plain)
            self.pairs = _foldable(traced)
        except Exception as error:  # tracing runs the model's own code, which may fail in any way
            logger.debug(f"{type(backbone).__name__} cannot be traced, so batch norm is not folded: {error}")
        if self.pairs:
            self.skeleton = _without_norms(traced, self.pairs)
        elif apart:
            self.skeleton = _plain(backbone).to("meta")
        elif any(map(parametrize.is_parametrized, backbone.modules())):  # its weights are computed, once for a network
            with suppress(Exception):  # as above
                self.skeleton = _plain(backbone).to("meta")

    @torch.no_grad()
    def network(self, backbone: nn.Module) -> Network:
        """Return the backbone as it is now, in evaluation mode, as a function of images alone.

        Under autocast the weights of convolutions are rounded once, here.
        """
        skeleton = self.skeleton
        if skeleton is None:
            return _stopped(backbone)
        tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in _tensors(backbone)}
        for convolution, norm in self.pairs.items():
            layer, bn = backbone.get_submodule(convolution), backbone.get_submodule(norm)
            assert isinstance(layer, nn.Conv2d) and isinstance(bn, _BatchNorm)
            weight, bias = fold(layer, bn)
            tensors |= {f"{convolution}.weight": _rounded(weight), f"{convolution}.bias": _rounded(bias)}
        return Network(skeleton, self._placed({name: tensors[name] for name, _ in _tensors(skeleton)}))

    def _placed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors to where those of the network before lie, if that is asked for."""
        held = self._held
        if held is None:
            return tensors
        for name, tensor in tensors.items():
            place = held.get(name)
            if place is None or (place.dtype, place.shape, place.device) != (tensor.dtype, tensor.shape, tensor.device):
                held[name] = tensor.clone()  # parameters of the backbone are among them
            else:
                place.copy_(tensor)
        return held


def _stopped(backbone: nn.Module) -> Network:
    """Return the backbone with its parameters detached, so that nothing is kept for gradients that nobody asks for.

    Weights that are re-expressed, of a network that cannot be copied, are left to torch's ``parametrize``.
    """
    if any(map(parametrize.is_parametrized, backbone.modules())):
        return Network(backbone, {})
    return Network(backbone, {name: parameter.detach() for name, parameter in backbone.named_parameters()})


@torch.no_grad()
def fold(layer: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that equals a convolution and its batch norm in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean
    if layer.bias is not None:
        shift = shift + layer.bias
    if norm.affine:
        scale = scale * norm.weight
    bias = shift * scale
    return layer.weight * scale.view(-1, 1, 1, 1), bias + norm.bias if norm.affine else bias


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers; a weight that is re-expressed (torch's ``parametrize``) as the tensor it is now."""
    found = [*module.named_parameters(), *module.named_buffers()]
    computed = [
        (f"{name}.weight" if name else "weight", layer.weight)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and "weight" not in layer._parameters
    ]
    return [*found, *computed]


def _plain(backbone: nn.Module) -> nn.Module:
    """Copy the backbone in evaluation mode, with the weights it has now where they are re-expressed."""
    plain = deepcopy(backbone).eval()
    for module in plain.modules():
        if parametrize.is_parametrized(module):
            _undo(module)
    return plain


def _undo(module: nn.Module) -> None:
    """Give a module plain parameters again.

    ``remove_parametrizations`` would change the class that torch made for the module, which its original shares.
    """
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    values = {name: getattr(module, name).detach() for name in parametrizations}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _foldable(traced: fx.GraphModule) -> dict[str, str]:
    """Find convolutions whose only reader is a batch norm, where neither is used twice."""
    modules = dict(traced.named_modules())
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    once = {name for name in (str(node.target) for node in calls) if sum(n.target == name for n in calls) == 1}
    pairs = {}
    for node in calls:
        source = node.args[0] if node.args else None
        if type(modules[str(node.target)]) is not nn.BatchNorm2d or not isinstance(source, fx.Node):
            continue  # a subclass may do more than normalise
        norm, convolution = str(node.target), str(source.target)
        if source.op != "call_module" or not isinstance(modules[convolution], nn.Conv2d) or len(source.users) > 1:
            continue
        if modules[norm].track_running_stats and {norm, convolution} <= once:
            pairs[convolution] = norm
    return pairs


def _without_norms(traced: fx.GraphModule, pairs: dict[str, str]) -> fx.GraphModule:
    """Take the folded norms out of the graph, and give their convolutions a bias. Tensors are left out."""
    norms = set(pairs.values())
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and node.target in norms:
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    skeleton = traced.to("meta")
    for name in pairs:
        layer = skeleton.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        layer.bias = nn.Parameter(torch.empty(layer.out_channels, device="meta"))
    return skeleton


def _rounded(tensor: Tensor) -> Tensor:
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor
