"""The attacked network is the same function, and its image gradients are the same, for models of many kinds."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autolora.attacks import PGD
from autolora.methods import LoFT
from autolora.models import RobustModel, build_model, evaluating
from autolora.models.folding import Folding
from autolora.threat import ThreatModel


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def model_of(name: str) -> RobustModel:
    """A model whose norms are not the identity, as after training."""
    model = build_model(name, classes=5, weights="none", image_size=32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def with_gradient(model: RobustModel, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


# resnext: grouped convolutions; mobilenetv3: norms with an activation inside, squeeze-and-excitation; vit: no norm
@pytest.mark.parametrize(
    "name", ["resnet20_cifar", "resnet18", "resnext26ts", "resnet26d", "mobilenetv3_small_050", "vit_tiny_patch16_224"]
)
def test_the_function_is_the_same(name: str) -> None:
    model, x = model_of(name), torch.rand(2, 3, 32, 32)
    folding = Folding(model.backbone)
    with evaluating(model):
        expected = with_gradient(model, x)
        with model.running(folding.network(model.backbone)):
            ours = with_gradient(model, x)
    for tensor, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(tensor, reference, rtol=1e-3, atol=1e-4 * float(reference.abs().max()))


def test_grouped_convolutions_fold() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, bias=True), nn.BatchNorm2d(8), nn.ReLU()).eval()
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    nn.init.uniform_(norm.running_mean, -1, 1)
    x = torch.rand(3, 4, 6, 6)
    torch.testing.assert_close(Folding(net).network(net)(x), net(x))


def test_it_follows_the_weights_and_statistics() -> None:
    model, x = model_of("resnet20_cifar"), torch.rand(2, 3, 32, 32)
    folding = Folding(model.backbone)
    model.train()(torch.rand(4, 3, 32, 32))  # statistics move
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    with evaluating(model):
        expected = model(x)
        with model.running(folding.network(model.backbone)):
            torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


def test_a_norm_that_reads_a_shared_convolution_is_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y) + y

    net = Shared().eval()
    assert net.bn.running_mean is not None
    net.bn.running_mean.fill_(0.7)
    folding, x = Folding(net), torch.rand(2, 3, 4, 4)
    assert not folding.pairs
    torch.testing.assert_close(folding.network(net)(x), net(x))


def test_a_network_that_cannot_be_traced_runs_as_it_is_and_keeps_nothing_for_its_weights() -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x if x.sum() > 0 else -x)

    net, x = Untraceable(), torch.rand(2, 4, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda t: t):  # type: ignore[func-returns-value]
        found = Folding(net).network(net)(x)
    torch.testing.assert_close(found, net(x))
    (grad,) = torch.autograd.grad(found.square().sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(net(x).square().sum(), x)[0])
    assert not any(tensor.shape == x.shape for tensor in kept)  # the layer's images, for the gradient of its weights
    assert next(net.parameters()).grad is None and net.layer.weight.requires_grad


def test_adapted_weights_are_computed_once_and_folded() -> None:
    model, x = model_of("resnet20_cifar"), torch.rand(2, 3, 32, 32)
    method = LoFT(PGD(ThreatModel("8/255"), steps=2), rank=2)
    method.prepare(model)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    assert parametrize.is_parametrized(model.backbone.conv1)  # type: ignore[arg-type]
    with evaluating(model):
        expected = model(x)
        with model.running(Folding(model.backbone).network(model.backbone)):
            torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


def test_the_model_is_as_before() -> None:
    model, x = model_of("resnet20_cifar"), torch.rand(2, 3, 32, 32)
    before = deepcopy(model.state_dict())
    folding = Folding(model.backbone)
    with evaluating(model):
        expected = model(x)
        with pytest.raises(KeyboardInterrupt), model.running(folding.network(model.backbone)):
            raise KeyboardInterrupt
        assert torch.equal(model(x), expected)
    assert list(model.state_dict()) == list(before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_every_convolution_of_a_resnet_is_folded() -> None:
    for name in ("resnet20_cifar", "resnet18"):
        model = model_of(name)
        convolutions = {n for n, m in model.backbone.named_modules() if isinstance(m, nn.Conv2d)}
        assert set(Folding(model.backbone).pairs) == convolutions, name
