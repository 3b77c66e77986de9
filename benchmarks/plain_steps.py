"""Training steps as the papers' released code takes them: float32, eager, a flag in every layer, PEFT's own layers.

Nothing of the package is used but the model that is copied, so that these are references for results as well as time.
Each function returns a step: images (N, C, H, W) in [0, 1] and labels (N,) to the loss, a Python number.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolora.models import RobustModel

PlainStep = Callable[[Tensor, Tensor], float]
EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
LAMBDA1, LAMBDA2, BETA = 0.4, 3.6, 6.0  # AutoLoRa's weights at a natural accuracy of 0.6; that of TRADES


def plain_at(robust: RobustModel) -> PlainStep:
    """Adversarial training (Madry et al., 2018)."""
    model = nn.Sequential(deepcopy(robust.normalize), deepcopy(robust.backbone), deepcopy(robust.head))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def step(x: Tensor, y: Tensor) -> float:
        x_adv = _attack(model, x, y)
        return _learn(model, optimizer, lambda: F.cross_entropy(model(x_adv), y))

    return step


def plain_trades(robust: RobustModel) -> PlainStep:
    """Vanilla robust fine-tuning: TRADES, attacked through the cross entropy, adversarial pass first."""
    model = nn.Sequential(deepcopy(robust.normalize), deepcopy(robust.backbone), deepcopy(robust.head))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def step(x: Tensor, y: Tensor) -> float:
        x_adv = _attack(model, x, y)

        def loss() -> Tensor:
            adversarial, natural = model(x_adv), model(x)
            return F.cross_entropy(natural, y) + BETA * _kl(natural, adversarial)

        return _learn(model, optimizer, loss)

    return step


class FlaggedConv(nn.Module):
    """A convolution that adds its low-rank weights when its flag says so, as in AutoLoRa's release."""

    def __init__(self, conv: nn.Conv2d, rank: int = 8) -> None:
        super().__init__()
        side = conv.kernel_size[0]
        self.conv, self.scale, self.natural = conv, 1 / rank, False
        self.lora_A = nn.Parameter(torch.randn(rank * side, conv.in_channels * side).to(conv.weight))
        self.lora_B = nn.Parameter(torch.zeros(conv.out_channels * side, rank * side).to(conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if not self.natural:
            return self.conv(x)
        weight = self.conv.weight + (self.lora_B @ self.lora_A).view(self.conv.weight.shape) * self.scale
        return F.conv2d(x, weight, self.conv.bias, self.conv.stride, self.conv.padding)


def plain_autolora(robust: RobustModel) -> PlainStep:
    """AutoLoRa with flags: which tensors learn is set anew for each of the two passes."""
    model = nn.Sequential(deepcopy(robust.normalize), deepcopy(robust.backbone), deepcopy(robust.head))
    stem = robust.backbone.pretrained_cfg["first_conv"]  # carries no branch
    backbone, head = model[1], model[2]
    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, nn.Conv2d) and name != stem:
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, FlaggedConv(layer))
    flagged = [layer for layer in backbone.modules() if isinstance(layer, FlaggedConv)]
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def choose(natural: bool) -> None:
        for layer in flagged:
            layer.natural = natural
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad = ("lora_" in name) == natural
        head.requires_grad_(True)

    def step(x: Tensor, y: Tensor) -> float:
        choose(natural=False)
        x_adv = _attack(model, x, y)

        def loss() -> Tensor:
            choose(natural=True)
            natural = model(x)
            choose(natural=False)
            adversarial = model(x_adv)
            return (
                LAMBDA1 * F.cross_entropy(natural, y)
                + (1 - LAMBDA1) * F.cross_entropy(adversarial, y)
                + LAMBDA2 * _kl(natural, adversarial)
            )

        return _learn(model, optimizer, loss)

    return step


def plain_loft(robust: RobustModel, *, low: bool = False, rank: int = 8) -> PlainStep:
    """LoFT on the layers of PEFT: each adapted convolution is followed by two more, in every pass.

    Args:
        robust: The model to copy.
        low: In bf16 and channels-last, otherwise the same loop.
        rank: Of the updates.
    """
    from peft import LoraConfig, get_peft_model

    copy = deepcopy(robust.backbone)
    convolutions = [name for name, layer in copy.named_modules() if isinstance(layer, nn.Conv2d)]
    adapted = get_peft_model(copy, LoraConfig(r=rank, lora_alpha=8, target_modules=convolutions))
    model = nn.Sequential(deepcopy(robust.normalize), adapted, deepcopy(robust.head))
    device = robust.head.weight.device
    model.to(device)
    if low:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            x_adv = _attack(model, x, y)

            def loss() -> Tensor:
                natural, adversarial = model(x).float(), model(x_adv).float()
                return F.cross_entropy(natural, y) + BETA * _kl(natural, adversarial)

            return _learn(model, optimizer, loss)

    return step


def _attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        loss = F.cross_entropy(model(x_adv), y)
        grad = torch.autograd.grad(loss, [x_adv])[0]
        x_adv = x_adv.detach() + STEP_SIZE * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    return x_adv.detach()


def _kl(natural: Tensor, adversarial: Tensor) -> Tensor:
    p, log_q = F.softmax(natural, dim=1), F.log_softmax(adversarial, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


def _learn(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    model.train()
    optimizer.zero_grad()
    value = loss()
    value.backward()
    optimizer.step()
    return value.item()
