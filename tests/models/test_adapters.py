"""An adapter is the merged model, whoever loads it: PEFT on timm's plain model, a merge, or a bank of several."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.methods import Batch, LoFT
from autolora.models import RobustModel, build_model, evaluating
from autolora.models.adapter_bank import AdapterBank
from autolora.models.adapter_files import load_adapter, save_adapter
from autolora.models.adapters import Adapter, fingerprint, merge
from autolora.models.branches import batch_norms
from autolora.models.lowrank import Pairs
from autolora.models.peft_format import peft_obstacle
from autolora.threat import ThreatModel

peft = pytest.importorskip("peft")

Damage = Callable[[Path], object]
MODELS = [("resnet20_cifar", 16), ("resnet18", 64), ("vit_tiny_patch16_224", 32)]
CLASSES = ["ant", "bee", "wasp"]
RECORD = {"threat_model": "Linf 8/255", "scores": {"natural": {"accuracy": 0.5}}}
PGD_1 = PGD(ThreatModel("8/255"), steps=1)


@dataclass(frozen=True)
class Trained:
    """A finished LoFT, and what it began with."""

    before: RobustModel
    after: RobustModel  # merged
    adapter: Adapter
    x: Tensor

    def plain(self, classes: int = len(CLASSES)) -> nn.Module:
        """Timm's own model of the pre-trained weights with a head of its own."""
        architecture = self.before.architecture
        model: nn.Module = timm.create_model(architecture.name, num_classes=classes, **architecture.arguments)
        rest = model.load_state_dict(self.before.backbone.state_dict(), strict=False)
        assert not rest.unexpected_keys and len(rest.missing_keys) == 2
        return model

    def normalised(self) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.adapter.mean, self.adapter.std))
        return (self.x - mean) / std

    def expected(self) -> Tensor:
        return logits(self.after, self.x)


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    with evaluating(model):
        result: Tensor = model(x)
    return result


def built(name: str, size: int, classes: int = len(CLASSES), seed: int = 0) -> RobustModel:
    """A random model; of timm's own, many batch norms start with factors of zero, behind which nothing would train."""
    torch.manual_seed(seed)
    model = build_model(name, classes=classes, weights="none", image_size=size)
    torch.manual_seed(seed)  # the head has drawn as many numbers as there are classes
    for norm in batch_norms(model.backbone).values():
        nn.init.uniform_(norm.get_parameter("weight"), 0.5, 1.5)
    return model


@cache
def train(name: str, size: int, classes: int = len(CLASSES), seed: int = 1) -> Trained:
    """Two steps of LoFT on noise, at a scale that is no power of two."""
    model = built(name, size, classes)
    before = deepcopy(model)
    torch.manual_seed(seed)
    method = LoFT(PGD_1, rank=2, lora_alpha=3.5)
    method.prepare(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)
    for _ in range(2):
        x, y = torch.rand(2, 3, size, size), torch.randint(classes, (2,))
        method.begin_training(model)
        optimizer.zero_grad()
        torch.autograd.backward(list(method.loss(model, Batch(x, y, (x + 0.03).clamp(0, 1))).values()))
        optimizer.step()
    method.finalize(model)
    assert method.adapter is not None
    return Trained(before, model, method.adapter, torch.rand(2, 3, size, size))


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model[0])
def trained(request: pytest.FixtureRequest) -> Trained:
    return train(*request.param)


@pytest.fixture(scope="module")
def small() -> Trained:
    return train("resnet20_cifar", 16)


@pytest.fixture
def folder(small: Trained, tmp_path: Path) -> Path:
    save_adapter(small.adapter, tmp_path / "adapter", CLASSES, RECORD)
    return tmp_path / "adapter"


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_training_has_moved_pairs_head_and_statistics(trained: Trained) -> None:
    """Else the comparisons below would compare a model with itself."""
    assert all(bool(b.any()) for _, b in trained.adapter.pairs.values())
    assert (trained.expected() - logits(trained.before, trained.x)).abs().max() > 1e-2
    pairs_alone, norms_alone = deepcopy(trained.before), deepcopy(trained.before)
    merge(replace(trained.adapter, norms={}), pairs_alone)
    merge(replace(trained.adapter, pairs={}), norms_alone)
    assert (logits(pairs_alone, trained.x) - logits(trained.before, trained.x)).abs().max() > 1e-3
    if trained.adapter.norms:
        assert (logits(norms_alone, trained.x) - logits(trained.before, trained.x)).abs().max() > 1e-3


def test_peft_on_the_plain_model_gives_the_merged_models_logits(trained: Trained, tmp_path: Path) -> None:
    save_adapter(trained.adapter, tmp_path, CLASSES, RECORD)
    plain = trained.plain()
    before = logits(plain, trained.normalised())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = peft.PeftModel.from_pretrained(plain, tmp_path)
    adapted = {name for name, module in loaded.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert adapted == set(trained.adapter.pairs)
    close(logits(loaded, trained.normalised()), trained.expected())
    with loaded.disable_adapter():  # PEFT keeps the model's own norms and head, and switches
        close(logits(loaded, trained.normalised()), before)
    merged = loaded.merge_and_unload()
    close(logits(merged, trained.normalised()), trained.expected())
    assert set(merged.state_dict()) == set(trained.plain().state_dict())


def test_peft_adapts_no_layer_whose_name_merely_ends_alike(small: Trained, tmp_path: Path) -> None:
    few = replace(small.adapter, pairs={name: small.adapter.pairs[name] for name in ("conv1", "layer2.0.conv2")})
    save_adapter(few, tmp_path, CLASSES, RECORD)
    loaded = peft.PeftModel.from_pretrained(small.plain(), tmp_path)
    adapted = {name for name, module in loaded.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert adapted == {"conv1", "layer2.0.conv2"}
    merge(few, model := deepcopy(small.before), head=True)
    close(logits(loaded, small.normalised()), logits(model, small.x))


def test_merging_the_files_gives_the_merged_model(trained: Trained, tmp_path: Path) -> None:
    save_adapter(trained.adapter, tmp_path / "adapter", CLASSES, RECORD)
    model = deepcopy(trained.before)
    head = deepcopy(model.head.state_dict())
    merge(load_adapter(tmp_path), model)  # a run folder stands for its adapter
    assert all(torch.equal(model.head.state_dict()[name], tensor) for name, tensor in head.items())
    for name, tensor in trained.after.backbone.state_dict().items():
        torch.testing.assert_close(model.backbone.state_dict()[name], tensor, rtol=0, atol=1e-6)
    merge(trained.adapter, model := deepcopy(trained.before), head=True)
    close(logits(model, trained.x), trained.expected())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_bank_gives_the_merged_models_logits(trained: Trained) -> None:
    bank = AdapterBank(trained.before)
    bank.add("a name.with dots", trained.adapter)
    with torch.no_grad():
        close(bank(trained.x, adapter="a name.with dots"), trained.expected())


def test_a_round_trip_through_files_is_exact(trained: Trained, tmp_path: Path) -> None:
    save_adapter(trained.adapter, tmp_path, CLASSES, RECORD)
    loaded = load_adapter(tmp_path)
    for layer, pair in trained.adapter.pairs.items():
        assert all(torch.equal(*two) for two in zip(pair, loaded.pairs[layer], strict=True)), layer
    assert loaded.norms.keys() == trained.adapter.norms.keys() and loaded.pairs.keys() == trained.adapter.pairs.keys()
    for name, state in [("", trained.adapter.head), *trained.adapter.norms.items()]:
        found = loaded.norms[name] if name else loaded.head
        assert {key: t.tolist() for key, t in found.items()} == {key: t.tolist() for key, t in state.items()}, name
    for name in ("rank", "lora_alpha", "classifier", "architecture", "mean", "std", "fingerprint"):
        assert getattr(loaded, name) == getattr(trained.adapter, name), name
    assert loaded.classes == tuple(CLASSES) and loaded.record == RECORD
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "autolora.json",
    ]


# --- what an adapter belongs to ---


def test_another_backbone_is_refused_and_left_as_it_was(small: Trained) -> None:
    other = built("resnet20_cifar", 16, seed=5)
    state = deepcopy(other.state_dict())
    with pytest.raises(InputError, match=r"other weights of resnet20_cifar .fingerprint"):
        merge(small.adapter, other, head=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(InputError, match="belongs to resnet20_cifar, not to resnet32_cifar"):
        merge(small.adapter, built("resnet32_cifar", 16))
    with pytest.raises(InputError, match="other weights"):
        merge(small.adapter, deepcopy(small.after))  # a second time would add the pairs twice
    assert small.adapter.architecture is not None
    curved = replace(small.adapter.architecture, arguments={"act_layer": "gelu"})  # the same tensors
    with pytest.raises(InputError, match="resnet20_cifar built with act_layer=gelu, not with its default"):
        merge(replace(small.adapter, architecture=curved), deepcopy(small.before))
    darker = deepcopy(small.before)
    darker.normalize.mean.mul_(0.5)
    with pytest.raises(InputError, match="normalised with mean"):
        AdapterBank(darker).add("eps8", small.adapter)


def test_a_head_for_other_classes_is_refused(small: Trained) -> None:
    other = replace_head(small.before, 5)
    with pytest.raises(InputError, match="64 features to 3 classes, and the model's 64 to 5"):
        merge(small.adapter, other, head=True)
    merge(small.adapter, other)
    with pytest.raises(InputError, match="no head of its own"):
        AdapterBank(small.before).add("eps8", replace(small.adapter, head={}))


def replace_head(model: RobustModel, classes: int) -> RobustModel:
    model = deepcopy(model)
    model.head = nn.Linear(model.head.in_features, classes)
    return model


def test_the_fingerprint_is_of_values_that_stay(small: Trained) -> None:
    backbone = deepcopy(small.before.backbone)
    found = fingerprint(backbone)
    backbone.train()(torch.rand(2, 3, 16, 16))  # statistics move
    assert fingerprint(backbone.to(memory_format=torch.channels_last).requires_grad_(False)) == found
    for name, parameter in backbone.named_parameters():
        flat, kept = parameter.view(-1) if parameter.is_contiguous() else parameter.flatten(), parameter.clone()
        with torch.no_grad():
            parameter.copy_((flat + F.one_hot(torch.tensor(flat.numel() - 1), flat.numel()) * 1e-3).view_as(parameter))
        assert fingerprint(backbone) != found, name
        with torch.no_grad():
            parameter.copy_(kept)
    assert fingerprint(backbone) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": {"conv9": (torch.ones(2, 3, 3, 3), torch.ones(16, 2, 1, 1))}}, "'conv9', which is no convolution"),
        ({"pairs": {"conv1": (torch.ones(2, 4, 3, 3), torch.ones(16, 2, 1, 1))}}, r"makes \(16, 4, 3, 3\)"),
        ({"norms": {"bn1": {"weight": torch.ones(16)}}}, "state of 'bn1' does not fit"),
        ({"norms": {"bn9": {"weight": torch.ones(16)}}}, "state of 'bn9' does not fit"),
        ({"classifier": "fc"}, "'fc' of its own"),
    ],
)
def test_tensors_that_do_not_fit_are_named(small: Trained, change: dict[str, Any], message: str) -> None:
    model = deepcopy(small.before)
    with pytest.raises(InputError, match=message):
        merge(replace(small.adapter, **change), model)
    assert fingerprint(model.backbone) == small.adapter.fingerprint


# --- several on one backbone ---


def test_two_adapters_share_one_backbone(small: Trained) -> None:
    other = train("resnet20_cifar", 16, classes=5, seed=7)
    model = deepcopy(small.before)
    bank = AdapterBank(model)
    bank.add("eps4", small.adapter)
    bank.add("flowers", other.adapter)
    assert bank.names == ("eps4", "flowers")
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in bank.parameters()} == own  # nothing is stored twice
    before = deepcopy(model.state_dict())
    bank.train()  # bank(x) is in evaluation mode all the same
    with torch.no_grad():
        first = [bank(small.x, adapter=name) for name in ("eps4", "flowers")]
        again = [bank(small.x, adapter=name) for name in ("flowers", "flowers", "eps4")]
    assert model.backbone.training
    assert torch.equal(first[0], again[2]) and torch.equal(first[1], again[0]) and torch.equal(again[0], again[1])
    close(first[0], logits(small.after, small.x))
    close(first[1], logits(other.after, small.x))
    assert first[1].shape == (2, 5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_attack_on_a_bank_is_one_on_the_merged_model(small: Trained) -> None:
    bank = AdapterBank(small.before)
    bank.add("eps8", small.adapter)
    y = torch.tensor([0, 1])
    grads = []
    for way in (partial(bank, adapter="eps8"), deepcopy(small.after).eval()):
        x = small.x.clone().requires_grad_()
        torch.autograd.backward(F.cross_entropy(way(x), y))
        assert x.grad is not None and x.grad.abs().max() > 0
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in bank.parameters())
    x_adv = PGD(ThreatModel("8/255"), steps=2)(partial(bank, adapter="eps8"), small.x, y)
    assert 0 < (x_adv - small.x).abs().max() <= 8 / 255 + 1e-6


def test_adapters_go_where_the_bank_goes(small: Trained) -> None:
    bank = AdapterBank(deepcopy(small.before))
    bank.add("eps8", small.adapter)
    with torch.no_grad():
        found = bank.double()(small.x.double(), adapter="eps8")
    assert found.dtype == torch.float64
    close(found.float(), small.expected())


def test_names_in_a_bank(small: Trained) -> None:
    bank = AdapterBank(small.before)
    bank.add("eps4", small.adapter)
    with pytest.raises(InputError, match="'eps4': the name is taken"):
        bank.add("eps4", small.adapter)
    bank.add("eps8", small.adapter)
    with pytest.raises(InputError, match="'eps2' is unknown; use eps4 or eps8"):
        bank(small.x, adapter="eps2")


# --- adapters that PEFT itself wrote ---


def by_peft(small: Trained, folder: Path, **options: Any) -> nn.Module:
    """Have PEFT make and save an adapter whose B is not zero."""
    targets = {"r": 3, "lora_alpha": 2, "target_modules": ["conv1", "layer2.0.conv2"]}
    model = peft.get_peft_model(small.plain(), peft.LoraConfig(**(targets | options)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    assert isinstance(model, nn.Module)
    return model


def test_an_adapter_that_peft_wrote_is_merged(small: Trained, tmp_path: Path) -> None:
    reference = by_peft(small, tmp_path, modules_to_save=["linear", "layer1.0.bn2"])
    adapter = load_adapter(tmp_path)
    assert adapter.fingerprint is None and adapter.architecture is None and adapter.classifier == "linear"
    merge(adapter, model := deepcopy(small.before), head=True)
    close(logits(model, small.x), logits(reference, small.normalised()))
    assert (logits(model, small.x) - logits(small.before, small.x)).abs().max() > 1e-2


def test_an_adapter_that_peft_wrote_may_have_no_head(small: Trained, tmp_path: Path) -> None:
    by_peft(small, tmp_path)
    merge(load_adapter(tmp_path), model := deepcopy(small.before))
    with pytest.raises(InputError, match="no head of its own"):
        merge(load_adapter(tmp_path), model, head=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_rslora": True}, "use_rslora"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True, "target_modules": ["linear"]}, "lora_bias"),
        ({"alpha_pattern": {"layer2.0.conv2": 5}}, "alpha_pattern"),
        ({"bias": "all"}, "bias"),
    ],
)
@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # PEFT warns about its own lora_bias
def test_what_is_not_plain_lora_is_refused(
    small: Trained, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    by_peft(small, tmp_path, **options)
    with pytest.raises(InputError, match=f"trained with {message}"):
        load_adapter(tmp_path)


# --- files that are not as they were written ---


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def retensor(change: Callable[[dict[str, Tensor]], Any]) -> Damage:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return apply


def cut(name: str) -> Damage:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


A1, B1 = (f"base_model.model.conv1.lora_{letter}.weight" for letter in "AB")
CONFIG, TENSORS, FACTS = "adapter_config.json", "adapter_model.safetensors", "autolora.json"
BROKEN: list[tuple[Damage, str]] = [
    (lambda folder: (folder / CONFIG).unlink(), "no adapter_config.json"),
    (lambda folder: (folder / TENSORS).unlink(), "adapter_model.safetensors is not there"),
    (cut(CONFIG), "cannot be read"),
    (cut(TENSORS), "not a readable safetensors file"),
    (cut(FACTS), "cannot be read"),
    (lambda folder: (folder / FACTS).write_text("[]"), "no JSON object"),
    (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe"), "cannot be read"),
    (edit(CONFIG, lambda c: c.update(peft_type="IA3")), "type 'IA3'"),
    (edit(CONFIG, lambda c: c.update(r=4)), "no pair of rank 4"),
    (edit(CONFIG, lambda c: c.pop("lora_alpha")), "lora_alpha=None"),
    (edit(CONFIG, lambda c: c.update(lora_alpha="8")), "lora_alpha='8'"),
    (edit(CONFIG, lambda c: c.update(init_lora_weights="pissa")), "init_lora_weights"),
    (edit(FACTS, lambda c: c.pop("fingerprint")), "fingerprint"),
    (edit(FACTS, lambda c: c["architecture"].pop("name")), "name"),
    (edit(FACTS, lambda c: c["architecture"].update(input_size=[3])), "autolora.json is not"),
    (edit(FACTS, lambda c: c["classes"].pop()), "not one of 2 classes"),
    (retensor(lambda t: t.pop(B1)), "no pair of rank 2"),
    (retensor(lambda t: t.pop(A1)), "B without its A"),
    (retensor(lambda t: t.update({A1: t[A1].flatten()})), "no pair of rank 2"),
    (retensor(lambda t: t.update({A1: t[A1][:1].clone()})), "no pair of rank 2"),
    (retensor(lambda t: t.update({B1: torch.zeros(0, 2)})), "no pair of rank 2"),
    (retensor(lambda t: t.update({B1: torch.zeros(16, 2, 3, 3)})), "no pair of rank 2"),
    (
        retensor(lambda t: t.update({"conv1.lora_A.weight": t.pop(A1), "conv1.lora_B.weight": t.pop(B1)})),
        "does not begin with base_model",
    ),
    (retensor(lambda t: t.update({"base_model.model.conv1.lora_magnitude_vector": t[A1][0, 0].clone()})), "plain LoRA"),
    (retensor(lambda t: [t.pop(name) for name in list(t) if "lora_" in name]), "no pairs"),
    (retensor(lambda t: t.pop("base_model.model.linear.bias")), "head is not one of 3 classes"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_broken_files_are_refused(folder: Path, damage: Damage, message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_adapter(folder)
    assert str(folder) in str(caught.value)


def test_no_adapter_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_adapter(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no adapter_config.json in it"):
        load_adapter(tmp_path)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_kill_leaves_nothing_that_loads(
    small: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Whatever was there before: a new adapter's tensors beside an old one's configuration would load, wrongly."""
    left = iter([None] * calls)
    fsync = os.fsync

    def killed(file: int) -> None:
        if next(left, ...) is ...:
            raise KeyboardInterrupt
        fsync(file)

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(replace(small.adapter, lora_alpha=1.0), folder, CLASSES, {})
    with pytest.raises(InputError):
        load_adapter(folder)
    monkeypatch.undo()
    save_adapter(replace(small.adapter, lora_alpha=1.0), folder, CLASSES, {})
    assert load_adapter(folder).lora_alpha == 1.0


# --- what PEFT cannot say ---


class Named(nn.Sequential):
    """A backbone made of named parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Bypassing(Named):
    """Reads the weight of its layer, as timm's BEiT does with that of ``qkv``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.get_parameter("conv.weight")).mean((2, 3))


class Standardised(nn.Conv2d):
    pass


class Filtered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(4))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"conv": nn.Conv2d(3, 6, 3, groups=3)}, "conv, a convolution with groups"),
        ({"conv": nn.Conv2d(3, 8, 3, dilation=2)}, "a convolution with dilation"),
        ({"conv": nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")}, "reflect padding"),
        ({"conv": Standardised(3, 8, 3)}, "which is a Standardised"),
        ({"conv": nn.Conv2d(3, 8, 3), "norm": Filtered()}, "does not save norm.average"),
        ({"conv": nn.Conv2d(3, 8, 3), "bn": nn.BatchNorm2d(8), "subn": nn.Identity()}, "would take subn"),
        ({"conv": nn.Conv2d(3, 8, 3), "my_linear": nn.Identity()}, "would take my_linear"),
    ],
)
def test_obstacles_are_named(small: Trained, parts: dict[str, nn.Module], message: str) -> None:
    model = deepcopy(small.before)
    model.backbone = Named(**parts)
    layer = parts["conv"]
    assert isinstance(layer, nn.Conv2d)
    assert message in str(peft_obstacle(model, {"conv": Pairs(2, "peft").update(layer)}))


def test_a_layer_that_is_never_called_is_an_obstacle(small: Trained) -> None:
    model, conv = deepcopy(small.before), nn.Conv2d(3, 64, 3)
    model.backbone = Bypassing(conv=conv)
    assert "has no way to adapt conv" in str(peft_obstacle(model, {"conv": Pairs(2, "peft").update(conv)}))
    assert not conv._forward_hooks


def test_no_obstacle_where_there_is_none(small: Trained) -> None:
    model = deepcopy(small.before)
    conv, linear = nn.Conv2d(3, 8, (1, 3), stride=2, padding=1), nn.Linear(8, 64)
    pool, flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model.backbone = Named(conv=conv, bn=nn.BatchNorm2d(8), pool=pool, flat=flat, fc=linear)
    updates = {"conv": Pairs(2, "peft").update(conv), "fc": Pairs(2, "loralib").update(linear)}  # linear: the same form
    assert peft_obstacle(model, updates) is None
    conv = nn.Conv2d(3, 8, 3)
    model.backbone = Named(conv=conv)
    assert "style=peft" in str(peft_obstacle(model, {"conv": Pairs(2, "loralib").update(conv)}))
