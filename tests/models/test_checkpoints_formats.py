"""Every foreign format: a small file in exactly its layout gives the logits of the network that wrote it.

The networks are written here by hand, or are torchvision's or timm's; none is ours. They are small relatives of the
ResNets, registered with timm for these tests, so that the whole way from file to logits is taken.
"""

from __future__ import annotations

import logging
import pickle
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from timm.models import build_model_with_cfg, register_model, save_for_hf
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models import RobustModel, build_model
from autolora.models.bundle import build_classifier, load_bundle, save_bundle
from autolora.models.checkpoints import load_checkpoint
from autolora.models.checkpoints.layouts import layout_of
from autolora.models.cifar_stem import CifarStemResNet
from autolora.models.weights import misfits

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
DEACL_VALUES = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
RAW = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
WIDTHS, CLASSES = (8, 8, 16, 16), 5
TINY: dict[str, Any] = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": WIDTHS}


def _cfg(size: int, mean: Any = IMAGENET[0], std: Any = IMAGENET[1], classifier: str = "fc") -> dict[str, Any]:
    values = {"mean": mean, "std": std, "input_size": (3, size, size), "classifier": classifier}
    return {"num_classes": CLASSES, "pool_size": None, "first_conv": "conv1", "interpolation": "bilinear", **values}


default_cfgs = {
    "tiny_resnet": _cfg(64),
    "tiny_resnet_cifar": _cfg(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),  # unlike any format's own
    "tiny_vit": {**_cfg(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "head"), "fixed_input_size": True},
}


@register_model
def tiny_resnet(pretrained: bool = False, **kwargs: Any) -> ResNet:
    return build_model_with_cfg(ResNet, "tiny_resnet", pretrained, **{**TINY, **kwargs})


@register_model
def tiny_resnet_cifar(pretrained: bool = False, **kwargs: Any) -> CifarStemResNet:
    return build_model_with_cfg(CifarStemResNet, "tiny_resnet_cifar", pretrained, **{**TINY, **kwargs})


@register_model
def tiny_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    size = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    return build_model_with_cfg(VisionTransformer, "tiny_vit", pretrained, **{**size, **kwargs})


# networks of other people


class Norms(nn.Module):
    """A batch norm for each kind of input, as ACL and AdvCL have it; the second is for adversarial images."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.bn_list = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_list[1](x)


class Shortcut(nn.Module):
    """ACL's down-sampling, a module with names in place of a sequence."""

    def __init__(self, conv: nn.Module, bn: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn = conv, bn

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Block(nn.Module):
    def __init__(self, fan_in: int, width: int, stride: int, norm: Callable[[int], nn.Module], shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)
        self.shortcut_name = shortcut
        if stride != 1 or fan_in != width:
            conv, bn = nn.Conv2d(fan_in, width, 1, stride, bias=False), norm(width)
            self.add_module(shortcut, Shortcut(conv, bn) if isinstance(bn, Norms) else nn.Sequential(conv, bn))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        way = getattr(self, self.shortcut_name, None)
        return F.relu(out + (x if way is None else way(x)))


class Values(nn.Module):
    """A normaliser with its values in the file, under names and in shapes that differ from code to code."""

    def __init__(self, values: Any, names: tuple[str, str] = ("mean", "std"), shape: tuple[int, ...] = (3,)) -> None:
        super().__init__()
        self.names = names
        for name, value in zip(names, values, strict=True):
            self.register_buffer(name, torch.tensor(value).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (self.get_buffer(name).view(1, 3, 1, 1) for name in self.names)
        return (x - mean) / std


class Network(nn.Module):
    """A ResNet of one block a stage: stem, names, norms and normaliser as the writer of a format has them."""

    def __init__(
        self,
        *,
        kernel: int = 3,
        padding: int = 1,
        norms: int = 1,
        shortcut: str = "downsample",
        head: str = "fc",
        normalize: Any = None,
    ) -> None:
        super().__init__()

        def norm(width: int) -> nn.Module:
            return nn.BatchNorm2d(width) if norms == 1 else Norms(width, norms)

        if normalize is not None:
            self.normalize = Values(normalize)
        self.conv1 = nn.Conv2d(3, 64, kernel, 2 if kernel == 7 else 1, 3 if kernel == 7 else padding, bias=False)
        self.bn1 = norm(64)
        fan_in = 64
        for stage, width in enumerate(WIDTHS, start=1):
            block = Block(fan_in, width, 1 if stage == 1 else 2, norm, shortcut)
            self.add_module(f"layer{stage}", nn.Sequential(block))
            fan_in = width
        self.head_name = head
        self.add_module(head, nn.Linear(fan_in, CLASSES))

    def features(self, x: Tensor) -> Tensor:
        x = self.normalize(x) if hasattr(self, "normalize") else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.conv1.kernel_size == (7, 7) else x
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.head_name)(self.features(x))


def trained(net: Any) -> Any:
    """Move every norm away from its start, differently, and stop training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm):
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5) if name != "running_mean" else tensor.normal_()
    return net.eval()


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def normalized(x: Tensor, values: Any) -> Tensor:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in values)
    return (x - mean) / std


@torch.no_grad()
def same_logits(model: RobustModel, source: Callable[[Tensor], Tensor], size: int = 32) -> None:
    x = torch.rand(3, 3, size, size)
    torch.testing.assert_close(model(x), source(x), rtol=1e-5, atol=1e-5)
    assert source(x).std(0).min() > 1e-4, "a network that tells no images apart proves nothing"


def loaded(path: Path, name: str = "tiny_resnet_cifar", **options: Any) -> RobustModel:
    return build_classifier(name, weights=str(path), **options)


def saved(folder: Path, content: Any, **options: Any) -> Path:
    torch.save(content, folder / "weights", **options)
    return folder / "weights"


# robustness, Salman et al.


class Attacker(nn.Module):
    def __init__(self, model: nn.Module, values: Any) -> None:
        super().__init__()
        self.normalize = Values(values, ("new_mean", "new_std"), (3, 1, 1))
        self.model = model


class AttackerModel(nn.Module):
    """The package's own: a normaliser, the model, and an attacker that holds both again."""

    def __init__(self, model: nn.Module, values: Any) -> None:
        super().__init__()
        self.normalizer = Values(values, ("new_mean", "new_std"), (3, 1, 1))
        self.model = model
        self.attacker = Attacker(model, values)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.normalizer(x))


class DummyModel(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dummy", [False, True])
def test_robustness(tmp_path: Path, dummy: bool, legacy: bool) -> None:
    """With the optimizer, a schedule of numpy's numbers, and each tensor twice, by dill."""
    dill = pytest.importorskip("dill")
    net = trained(Network(kernel=7))
    source = AttackerModel(DummyModel(net) if dummy else net, IMAGENET).eval()
    optimizer = torch.optim.SGD(source.parameters(), 0.1, momentum=0.9)
    state = nn.DataParallel(source).state_dict()
    assert len(state) == 2 * len(net.state_dict()) + 4
    content = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "schedule": {"lr_lambdas": [None], "_last_lr": [np.interp([0.5], [0, 1], [0, 1])[0]]},
        "epoch": 90,
        "amp": "N/A",
        "nat_prec1": torch.tensor(52.5),
    }
    path = saved(tmp_path, content, pickle_module=dill, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.format, checkpoint.state.keys()) == ("robustness", net.state_dict().keys())
    same_logits(loaded(path, "tiny_resnet"), source, 64)


def test_robustness_of_cifar(tmp_path: Path) -> None:
    """The package's CIFAR networks call shortcuts and head otherwise, and pad by 1."""
    values = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    source = AttackerModel(trained(Network(shortcut="shortcut", head="linear")), values)
    path = saved(tmp_path, {"state_dict": nn.DataParallel(source).state_dict(), "epoch": 3})
    same_logits(loaded(path), source)
    assert load_checkpoint(path).stem_padding == 1


# solo-learn and DeACL


def lightning(net: nn.Module, prefix: str = "backbone", **more: Any) -> dict[str, Any]:
    """What solo-learn's module holds: backbone, online classifier, and all that self-supervision needs."""
    state = {f"{prefix}.{name}": value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    state |= {f"momentum_{name}": torch.rand_like(value.float()) for name, value in state.items()}
    state |= {f"classifier.{name}": value for name, value in net.get_submodule("fc").state_dict().items()}
    state |= {"projector.0.weight": torch.ones(4, 16), "predictor.0.weight": torch.ones(4, 4)}
    return {"epoch": 999, "pytorch-lightning_version": "1.4.9", "state_dict": state, "callbacks": {}, **more}


@pytest.mark.parametrize("prefix", ["backbone", "encoder"])
@pytest.mark.parametrize(("data", "values"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_solo_learn(tmp_path: Path, prefix: str, data: str, values: Any) -> None:
    """The stem pads by 2 and gives maps of 34x34; images are normalised outside of the model."""
    net = trained(Network(padding=2))
    path = saved(tmp_path, lightning(net, prefix, hyper_parameters={"dataset": data, "backbone": "resnet18"}))
    model = loaded(path)
    same_logits(model, lambda x: net(normalized(x, values)))
    assert model.backbone.get_submodule("conv1")(torch.zeros(1, 3, 32, 32)).shape[-1] == 34
    assert load_checkpoint(path).format == "solo-learn"


def test_solo_learn_with_nested_settings(tmp_path: Path) -> None:
    """Arguments parsed by a command line, which ``weights_only=True`` refuses, with the data a level down."""
    settings = Namespace(backbone=Namespace(name="resnet18"), data=Namespace(dataset="cifar100"))
    path = saved(tmp_path, lightning(trained(Network(padding=2)), hyper_parameters=settings))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    normalization = load_checkpoint(path).normalization
    assert normalization is not None
    assert (normalization.mean, normalization.std) == CIFAR100


def test_solo_learn_on_imagenet(tmp_path: Path) -> None:
    """The usual stem, and ImageNet's values."""
    net = trained(Network(kernel=7))
    path = saved(tmp_path, lightning(net, hyper_parameters={"dataset": "imagenet100"}))
    same_logits(loaded(path, "tiny_resnet"), lambda x: net(normalized(x, IMAGENET)), 64)


def test_what_ships_of_a_stem_that_pads_by_2(tmp_path: Path) -> None:
    """The padding goes on into timm's format, and into a model that starts from it."""
    net = trained(Network(padding=2))
    model = loaded(saved(tmp_path, lightning(net, hyper_parameters={"dataset": "cifar10"})))
    save_bundle(model, tmp_path / "model", [str(i) for i in range(CLASSES)], {})
    same_logits(load_bundle(tmp_path), model)
    again = build_model("tiny_resnet_cifar", classes=CLASSES, weights=str(tmp_path)).eval()
    again.head.load_state_dict(model.head.state_dict())
    same_logits(again, lambda x: net(normalized(x, CIFAR10)))


def test_deacl(tmp_path: Path) -> None:
    """A student beside its teacher, with a normaliser of its own in the file, and solo-learn's stem."""
    net = trained(Network(padding=2, normalize=DEACL_VALUES))
    content = lightning(net)
    content["state_dict"] |= {"classifier_adv.weight": torch.rand(5, 16), "classifier_adv.bias": torch.rand(5)}
    path = saved(tmp_path, content)
    assert load_checkpoint(path).format == "deacl"
    same_logits(loaded(path), net)


def test_deacl_without_a_normaliser_takes_imagenets(tmp_path: Path) -> None:
    net = trained(Network(padding=2))
    state = {f"backbone.{name}": value for name, value in net.state_dict().items()}
    path = saved(tmp_path, {"state_dict": state})
    same_logits(loaded(path, weights_format="deacl"), lambda x: net(normalized(x, IMAGENET)))


def test_a_bare_backbone_can_be_of_two_formats(tmp_path: Path) -> None:
    """They differ in what they normalise by: nobody should guess."""
    path = saved(tmp_path, {f"backbone.{name}": value for name, value in Network().state_dict().items()})
    with pytest.raises(InputError, match=r"formats solo-learn and deacl.*--weights-format solo-learn \(or deacl\)"):
        load_checkpoint(path)
    assert load_checkpoint(path, "solo-learn").format == "solo-learn"


# adversarial contrastive learning


def with_projection(net: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """ACL's network with its projection head, whose batch norms are lists too, in place of the classifier."""
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    head = {"fc1.weight": torch.ones(16, 16), **{f"bn1.bn_list.{i}.weight": torch.ones(16) for i in range(2)}}
    return state | {f"{prefix}fc.{name}": value for name, value in head.items()}


def same_features(path: Path, net: Network, prepare: Callable[[Tensor], Tensor], **options: Any) -> None:
    """Compare the backbones, where a file has no classifier."""
    model = build_model("tiny_resnet_cifar", classes=3, weights=str(path), **options).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        theirs = net.features(prepare(x))
        torch.testing.assert_close(model.backbone(model.normalize(x)), theirs, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"hold no head, only a backbone.*autolora fit"):
        loaded(path, **options)


@pytest.mark.parametrize("container", ["state_dict", "state_dict_dual"])
@pytest.mark.parametrize("prefix", ["", "encoder_k.", "module.encoder_k."])
def test_acl(tmp_path: Path, prefix: str, container: str) -> None:
    """Branch 1 is the adversarial one; ImageNet's normaliser is in the network, though its images are CIFAR's."""
    net = trained(Network(norms=2, normalize=IMAGENET))
    state = with_projection(net, prefix)
    if prefix:
        state |= with_projection(trained(Network(norms=2, normalize=IMAGENET)), prefix.replace("_k", "_q"))
    path = saved(tmp_path, {"epoch": 1000, container: state, "optim": {}})
    checkpoint = load_checkpoint(path)
    assert checkpoint.format == "acl"
    assert not any("bn_list" in name or name.startswith("fc.") for name in checkpoint.state)
    same_features(path, net, lambda x: x)


def test_acl_fine_tuned(tmp_path: Path) -> None:
    """A linear head in place of the projection is one to evaluate, with one batch norm or two."""
    for norms in (1, 2):
        net = trained(Network(norms=norms, normalize=IMAGENET))
        same_logits(loaded(saved(tmp_path, {"state_dict": net.state_dict()}), weights_format="acl"), net)


@pytest.mark.parametrize("prefix", ["", "module.encoder_k."])
def test_acl_after_its_second_phase(tmp_path: Path, prefix: str) -> None:
    """DynACL++ has one batch norm left, with the names of shortcut and projection head as before."""
    net = trained(Network(normalize=IMAGENET))
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    for theirs, ours in ((".downsample.conv.", ".downsample.0."), (".downsample.bn.", ".downsample.1.")):
        state = {name.replace(ours, theirs): value for name, value in state.items()}
    state |= {"fc.fc1.weight": torch.ones(16, 16), "fc.bn1.weight": torch.ones(16), "fc.fc2.weight": torch.ones(4, 16)}
    path = saved(tmp_path, {"epoch": 25, "state_dict": {f"{prefix}{name}": value for name, value in state.items()}})
    assert load_checkpoint(path).format == "acl"
    same_features(path, net, lambda x: x)


def test_advcl(tmp_path: Path) -> None:
    """A third branch for pseudo-labels, heads for everything, and images as they are."""
    net = trained(Network(norms=3))
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    heads = ("fc_002.weight", "fc_500.bias", "head_ce.0.weight", "head_proj.3.bias", "head_pred.1.running_mean")
    state |= {name: torch.ones(2) for name in heads}
    state = {f"module.{name}": value for name, value in state.items()}
    path = saved(tmp_path, {"model": state, "epoch": 1000, "rng_state": torch.get_rng_state()})
    assert load_checkpoint(path).format == "advcl"
    same_features(path, net, lambda x: x)


# collections


@pytest.mark.parametrize("names", [("mu", "sigma"), ("normalize.mean", "normalize.std")])
def test_robustbench(tmp_path: Path, names: tuple[str, str]) -> None:
    """A normaliser of the model's own, or the wrapper of the zoo's ImageNet models, under DataParallel."""
    net = trained(Network(shortcut="shortcut", head="linear"))
    place = "model." if "." in names[0] else ""
    state = {f"module.{place}{name}": value for name, value in net.state_dict().items()}
    state |= {f"module.{name}": torch.tensor(v).view(1, 3, 1, 1) for name, v in zip(names, CIFAR100, strict=True)}
    path = saved(tmp_path, {"last": state, "best": {}})
    assert load_checkpoint(path).format == "robustbench"
    same_logits(loaded(path), lambda x: net(normalized(x, CIFAR100)))


@pytest.mark.parametrize(
    ("kernel", "name", "size", "values"), [(3, "tiny_resnet_cifar", 32, RAW), (7, "tiny_resnet", 64, IMAGENET)]
)
def test_robustbench_without_a_normaliser(tmp_path: Path, kernel: int, name: str, size: int, values: Any) -> None:
    net = trained(Network(kernel=kernel))
    path = saved(tmp_path, net.state_dict())
    same_logits(loaded(path, name, weights_format="robustbench"), lambda x: net(normalized(x, values)), size)


def test_torchvisions_resnets(tmp_path: Path) -> None:
    net = trained(Network(kernel=7))
    path = saved(tmp_path, net.state_dict())
    assert load_checkpoint(path).format == "torchvision"
    same_logits(loaded(path, "tiny_resnet"), lambda x: net(normalized(x, IMAGENET)), 64)


def disturbed(net: nn.Module) -> nn.Module:
    """Give a network weights and statistics that differ from tensor to tensor."""
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.mul_(torch.empty_like(value).uniform_(0.7, 1.3)).add_(torch.empty_like(value).uniform_(0, 0.02))
    return net.eval()


@pytest.mark.parametrize(("name", "wrapped"), [("mobilenet_v2", False), ("mnasnet1_0", True)])
def test_torchvisions_other_layouts(tmp_path: Path, name: str, wrapped: bool) -> None:
    """By themselves, or as Salman et al. keep them: twice, below another wrapper; in any order of the file."""
    net = disturbed(getattr(torchvision.models, name)(weights=None, num_classes=CLASSES))
    state = dict(sorted(net.state_dict().items(), key=lambda item: item[0][::-1]))
    source: nn.Module = net
    if wrapped:
        source = AttackerModel(DummyModel(net), CIFAR100).eval()
        state = nn.DataParallel(source).state_dict()
    path = saved(tmp_path, {"model": state})
    assert load_checkpoint(path).format == ("robustness" if wrapped else "torchvision")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = source(x) if wrapped else net(normalized(x, IMAGENET))
        found = build_classifier(str(path))(x)  # the file tells its architecture
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_vggs_linear_layers_become_convolutions() -> None:
    """timm looks at the last 7x7 pixels with a convolution, torchvision at the same numbers flattened."""
    with torch.device("meta"):  # half a gigabyte of weights
        state = torchvision.models.vgg11_bn(weights=None, num_classes=CLASSES).state_dict()
        theirs: Any = timm.create_model("vgg11_bn", num_classes=CLASSES)
    found = layout_of(state)
    assert found is not None and found.architecture == "vgg11_bn"
    assert not any(misfits(theirs.state_dict(), found.state).values())
    x, linear = torch.rand(2, 512, 7, 7), nn.Linear(512 * 7 * 7, 3)
    kernel = linear.weight.reshape(3, 512, 7, 7)  # as the layout makes it
    torch.testing.assert_close(F.conv2d(x, kernel, linear.bias).flatten(1), linear(x.flatten(1)), rtol=1e-4, atol=1e-4)


def test_a_layout_with_a_tensor_more_is_none(tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v2(weights=None, num_classes=CLASSES).state_dict()
    assert layout_of(state) is not None
    assert layout_of({**state, "more": torch.zeros(1)}) is None
    assert layout_of({**state, "features.0.0.weight": torch.zeros(32, 3, 5, 5)}) is None


@pytest.mark.parametrize("old_names", [False, True])
def test_torchvisions_transformers(tmp_path: Path, old_names: bool) -> None:
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64, num_classes=CLASSES)
    nn.init.normal_(trained(net).heads.head.weight)
    state = net.state_dict()
    if old_names:
        renamed = (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2."))
        for new, old in renamed:
            state = {name.replace(new, old): value for name, value in state.items()}
    path = saved(tmp_path, state)
    assert load_checkpoint(path).format == "torchvision"
    same_logits(loaded(path, "tiny_vit"), lambda x: net(normalized(x, IMAGENET)))


def test_timms_training_script(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It records architecture and arguments, and keeps an average of the weights beside them."""
    net = trained(timm.create_model("tiny_resnet_cifar"))
    arguments = Namespace(model="tiny_resnet_cifar", mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    average = {name: value + 1 for name, value in net.state_dict().items()}
    content = {"epoch": 9, "arch": "tiny_resnet_cifar", "args": arguments, "version": 2, "metric": 91.0}
    path = saved(tmp_path, {**content, "state_dict": net.state_dict(), "state_dict_ema": average})
    caplog.set_level(logging.INFO)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.format, checkpoint.architecture) == ("timm", "tiny_resnet_cifar")
    # no architecture named: the file does
    same_logits(build_classifier(str(path)), lambda x: net(normalized(x, ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))))
    assert "state_dict is taken, not state_dict_ema" in caplog.text


def test_timms_own_files(tmp_path: Path) -> None:
    """``config.json`` beside the weights says how to normalise; the file alone cannot."""
    net: Any = trained(timm.create_model("tiny_resnet_cifar"))
    net.pretrained_cfg = {**net.pretrained_cfg, "mean": CIFAR100[0], "std": CIFAR100[1]}
    save_for_hf(net, str(tmp_path), safe_serialization=True)
    path = tmp_path / "model.safetensors"
    assert load_checkpoint(path).format == "timm"
    same_logits(loaded(path), lambda x: net(normalized(x, CIFAR100)))
    (tmp_path / "other").mkdir()
    moved = tmp_path / "other" / "model.safetensors"
    moved.write_bytes(path.read_bytes())
    values = (default_cfgs["tiny_resnet_cifar"]["mean"], default_cfgs["tiny_resnet_cifar"]["std"])
    same_logits(loaded(moved), lambda x: net(normalized(x, values)))


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-5], lambda text: "", lambda text: "[" * 100_000], ids=["cut", "empty", "deep"]
)
def test_a_damaged_description_beside_weights_is_not_taken_for_none(tmp_path: Path, damage: Any) -> None:
    """Images would be normalised otherwise than the weights expect, and nothing would tell."""
    save_for_hf(timm.create_model("tiny_resnet_cifar"), str(tmp_path), safe_serialization=True)
    config = tmp_path / "config.json"
    config.write_text(damage(config.read_text()))
    with pytest.raises(InputError, match=r"config.json is damaged and cannot be read as JSON"):
        load_checkpoint(tmp_path / "model.safetensors")


def compiled(net: nn.Module) -> nn.Module:
    """What torch.compile makes of names; it takes long to import."""
    return nn.ModuleDict({"_orig_mod": net})


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled, lambda net: compiled(nn.DataParallel(net))])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "safetensors"])
def test_plain_state_dicts_in_wrappers(tmp_path: Path, wrap: Any, form: str) -> None:
    net = trained(Network())
    state, path = wrap(net).state_dict(), tmp_path / "weights"
    assert not state.keys() & net.state_dict().keys()
    if form == "safetensors":
        save_file(state, path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in state.items()}))
    else:
        saved(tmp_path, {"net": state, "acc": 91.0}, _use_new_zipfile_serialization=form == "zip")
    assert load_checkpoint(path).format == "plain"
    values = (default_cfgs["tiny_resnet_cifar"]["mean"], default_cfgs["tiny_resnet_cifar"]["std"])
    same_logits(loaded(path), lambda x: net(normalized(x, values)))


@pytest.mark.parametrize("prefix", ["model.", "net.", "net.encoder_of_mine.", "_forward_module.model."])
@pytest.mark.parametrize("beside", [(), ("criterion.weight", "val_metric.total")], ids=str)
def test_a_module_around_the_network(
    tmp_path: Path, prefix: str, beside: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """As of a LightningModule: what the one prefix is called does not matter."""
    net = trained(Network())
    state = {prefix + name: value for name, value in net.state_dict().items()} | dict.fromkeys(beside, torch.ones(3))
    path = saved(tmp_path, {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.5.0"})
    values = (default_cfgs["tiny_resnet_cifar"]["mean"], default_cfgs["tiny_resnet_cifar"]["std"])
    with caplog.at_level(logging.INFO):
        same_logits(loaded(path), lambda x: net(normalized(x, values)))
    assert f"{prefix!r} is taken off the names of its weights" in caplog.text
    assert ("2 tensors beside them are left out (criterion.weight, val_metric.total)" in caplog.text) == bool(beside)


def test_of_two_networks_in_one_module_none_is_guessed(tmp_path: Path) -> None:
    students = {
        f"{name}.{key}": value for name in ("student", "teacher") for key, value in Network().state_dict().items()
    }
    with pytest.raises(InputError, match=r"what is below 'student\.' and 'teacher\.' fits; save the one that is meant"):
        loaded(saved(tmp_path, students))


def test_a_prefix_beside_a_normaliser_is_not_taken_off(tmp_path: Path) -> None:
    state = {f"net.{name}": value for name, value in Network().state_dict().items()}
    with pytest.raises(InputError, match="do not fit the model"):
        loaded(saved(tmp_path, state | {"pixels.mean": torch.ones(3), "pixels.std": torch.ones(3)}))


def test_a_sequence_of_normaliser_and_network(tmp_path: Path) -> None:
    """Nothing normalises twice: what is in the file takes the place of the architecture's own."""
    source = nn.Sequential(Values(CIFAR100), trained(Network()))
    same_logits(loaded(saved(tmp_path, source.state_dict())), source)


@pytest.mark.parametrize("std", [(0.2, 0.0, 0.2), (0.2, float("nan"), 0.2), (0.2, -1.0, 0.2)])
def test_a_normaliser_that_cannot_be(tmp_path: Path, std: Any) -> None:
    source = nn.Sequential(Values((CIFAR10[0], std)), Network())
    with pytest.raises(InputError, match="it would normalise by mean"):
        loaded(saved(tmp_path, source.state_dict()))


# what is said


def test_what_was_recognised_and_taken_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, lightning(trained(Network(padding=2)), hyper_parameters={"dataset": "cifar10"}))
    with caplog.at_level(logging.INFO):
        loaded(path)
    (line,) = [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
    for part in ("format solo-learn", "mean (0.4914, 0.4822, 0.4465)", "CIFAR-10's", "stem padding 2"):
        assert part in line
    assert "no head" not in line


def test_a_format_that_is_forced(tmp_path: Path) -> None:
    path = saved(tmp_path, Network().state_dict())
    with pytest.raises(InputError, match=r"not of the format robustness, since nothing in it is named 'model\.'"):
        loaded(path, weights_format="robustness")
    with pytest.raises(InputError, match=r"weights-format='robustnes' is unknown; there are auto, robustness, solo"):
        loaded(path, weights_format="robustnes")
    with pytest.raises(InputError, match="unknown; there are auto"):
        build_model("tiny_resnet_cifar", classes=2, weights="none", weights_format="robustnes")


def test_a_diff_that_can_be_read(tmp_path: Path) -> None:
    """What differs, how the file was read, and what it would fit."""
    state = timm.create_model("resnet20_cifar").state_dict()
    path = saved(tmp_path, {"state_dict": {f"module.{name}": value for name, value in state.items()}})
    with pytest.raises(InputError) as caught:
        loaded(path)
    message = str(caught.value)
    assert "do not fit the model CifarStemResNet: missing: layer1.0.downsample.0.weight" in message
    assert "unexpected: layer1.1.conv1.weight" in message
    assert "conv1.weight (16, 3, 3, 3) instead of (64, 3, 3, 3)" in message
    assert "They fit resnet20_cifar; name it with --model resnet20_cifar" in message
    assert "\n" not in message
