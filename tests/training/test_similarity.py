"""Gradient similarity against cosines by hand, and against one backward pass after another on a copy of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from timm.models import build_model_with_cfg
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.methods import ALF, FT, METHODS, SLF, AutoLoRa, Batch, LoFT, Method, TwinsTRADES, VanillaRFT
from autolora.methods.base import Losses, Pair
from autolora.models import Architecture, Normalize, RobustModel
from autolora.models.backbones import split
from autolora.models.lowrank import LowRankUpdate
from autolora.models.resnet_cifar import CifarResNet
from autolora.schedules import Constant
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, TrainingState, fit
from autolora.training.similarity import GradientSimilarity, extractor_parameters

PGD_2 = PGD(ThreatModel("8/255"), steps=2)
Data = list[tuple[Tensor, Tensor]]
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def resnet() -> RobustModel:
    return split(build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=4), classes=3)


def vit() -> RobustModel:
    """One block of a vision transformer: layer norms, attention, and no batch norm."""
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24)
    return split(network, classes=3, image_size=32)


def prepared(method: Method, model: RobustModel) -> RobustModel:
    """A model in training mode in which nothing is as it starts: norms, branches, pairs and head are random."""
    method.prepare(model)
    nn.init.normal_(model.head.weight, std=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, LowRankUpdate):
            nn.init.normal_(module.lora_B, std=0.1)
    return model.train()


def images(count: int = 5, side: int = 8, size: int = 2) -> Data:
    x, y = torch.rand(count, 3, side, side), torch.arange(count) % 3
    return [(x[i : i + size], y[i : i + size]) for i in range(0, count, size)]


def gradient(model: RobustModel, loss: Tensor) -> Tensor:
    """One backward pass; what has no gradient counts as zero. Names tell the head and the pairs."""
    model.zero_grad()
    torch.autograd.backward(loss, retain_graph=True)
    named = [(n, p) for n, p in model.named_parameters() if not n.startswith("head.") and "lora_" not in n]
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for _, p in named])


def naive(model: RobustModel, method: Method, data: Data, seed: int = 0) -> dict[str, list[float]]:
    """Similarities by the definition, an image at a time."""
    model = deepcopy(model).eval()
    torch.manual_seed(seed)
    attacked = [Batch(x, y, method.attack(model, x, y)) for x, y in data]
    model.requires_grad_(True)
    found: dict[str, list[float]] = {}
    for batch in attacked:
        for i in range(len(batch.y)):
            one = Batch(*(tensor[i : i + 1] for tensor in batch))
            for name, pair in method.objectives(model, one).items():
                g, h = (gradient(model, loss.sum()) for loss in pair)
                found.setdefault(name, []).append(float((g * h).sum() / (g.norm() * h.norm())))
    return found


def assert_summary(row: dict[str, float], name: str, expected: list[float]) -> None:
    assert row[name] == pytest.approx(fmean(expected), rel=1e-4, abs=1e-5)
    assert row[f"{name}_se"] == pytest.approx(stdev(expected) / math.sqrt(len(expected)), rel=1e-3, abs=1e-5)
    assert row[f"{name}_left_out"] == 0


@every_method
@pytest.mark.parametrize(("network", "side"), [(resnet, 8), (vit, 32)])
def test_every_method_equals_one_backward_pass_after_another(
    name: str, network: Callable[[], RobustModel], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, data = METHODS[name](PGD_2), images(3, side)
    if name in ("ft", "slf"):
        monkeypatch.setattr(method, "attack", PGD_2)  # they have no adversarial images of their own
    model = prepared(method, network())
    expected = naive(model, method, data, seed=7)
    row = GradientSimilarity(model, method, data, seed=7)(1)
    for pair, values in expected.items():
        assert_summary(row, f"gs_{pair.replace('-', '_')}", values)
    assert row["gs_images"] == 3 and row["gs_seconds"] > 0
    assert len(row) == 3 * len(expected) + 2 and all(map(math.isfinite, row.values()))


@dataclass
class Moved(Method):
    """Two losses that are linear in the features, l1 = u.Wx + 9 and l2 = v.Wx' + 9, and x' a given image.

    Their gradients into W are u x^T and v x'^T, so the cosine is cos(u, v) cos(x, x').
    """

    u: tuple[float, float] = (1.0, 0.0)
    v: tuple[float, float] = (1.0, 0.0)
    to: tuple[float, float] | None = None
    factor: float = 1.0

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        return x if self.to is None else torch.tensor(self.to).expand(len(x), 1, 1, 2)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        return {}

    def objectives(self, model: RobustModel, batch: Batch) -> dict[str, Pair]:
        first = model.backbone(batch.x) @ torch.tensor(self.u) + 9
        return {"own": (first, self.factor * (model.backbone(batch.x_adv) @ torch.tensor(self.v) + 9))}


def linear() -> RobustModel:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    return RobustModel(Normalize([0.0], [1.0]), backbone, nn.Linear(2, 2), Architecture("none", "none", (1, 1, 2)))


def points(*rows: tuple[float, float]) -> Data:
    return [(torch.tensor(rows).view(-1, 1, 1, 2), torch.zeros(len(rows), dtype=torch.long))]


def measured(method: Method, data: Data, **options: Any) -> dict[str, float]:
    row = GradientSimilarity(linear(), method, data, **options)(1)
    return {name: value for name, value in row.items() if not name.endswith("seconds")}


@pytest.mark.parametrize(("v", "expected"), [((2.0, 0.0), 1.0), ((-3.0, 0.0), -1.0), ((0.0, 5.0), 0.0)])
def test_the_same_the_opposite_and_the_unrelated_direction(v: tuple[float, float], expected: float) -> None:
    row = measured(Moved(PGD_2, v=v), points((0.3, 0.4), (0.5, 0.1)))
    assert row == pytest.approx({"gs_own": expected, "gs_own_se": 0.0, "gs_own_left_out": 0, "gs_images": 2}, abs=1e-6)


def test_the_mean_over_images_and_its_error_by_hand() -> None:
    """The angle of u and v is 45 degrees; x' = (0.6, 0.8) has cosine 0.6 with one image and 0.8 with the other."""
    method = Moved(PGD_2, v=(1.0, 1.0), to=(0.6, 0.8))
    row = measured(method, points((0.5, 0.0), (0.0, 0.9)))
    a, b = 0.6 / math.sqrt(2), 0.8 / math.sqrt(2)
    expected = {"gs_own": (a + b) / 2, "gs_own_se": (b - a) / 2, "gs_own_left_out": 0, "gs_images": 2}
    assert row == pytest.approx(expected, abs=1e-6)


def test_the_similarity_of_batches_is_that_of_their_mean_losses_and_says_so() -> None:
    """The mean of the images (1, 0) and (0, 1) has cosine 1.4 / sqrt(2) with x' = (0.6, 0.8)."""
    method = Moved(PGD_2, v=(1.0, 1.0), to=(0.6, 0.8))
    data = points((1.0, 0.0), (0.0, 1.0)) + points((1.0, 0.0)) + points((0.0, 1.0))
    row = measured(method, data, estimate="batch")
    values = [0.7, 0.6 / math.sqrt(2), 0.8 / math.sqrt(2)]
    name = "gs_batch_own"
    expected = {name: fmean(values), f"{name}_se": stdev(values) / math.sqrt(3), f"{name}_left_out": 0}
    assert row == pytest.approx(expected | {"gs_batch_images": 4}, abs=1e-6)


def test_an_image_without_a_gradient_is_left_out_and_counted() -> None:
    method = Moved(PGD_2, v=(1.0, 1.0), to=(0.6, 0.8))
    row = measured(method, points((0.5, 0.0), (0.0, 0.0), (0.5, 0.0)))
    expected = {"gs_own": 0.6 / math.sqrt(2), "gs_own_se": 0.0, "gs_own_left_out": 1, "gs_images": 3}
    assert row == pytest.approx(expected, abs=1e-6)


def test_an_error_needs_two_images_and_a_mean_needs_one() -> None:
    one = measured(Moved(PGD_2), points((0.5, 0.0), (0.0, 0.0)))
    assert one == pytest.approx({"gs_own": 1.0, "gs_own_left_out": 1, "gs_images": 2})
    assert measured(Moved(PGD_2), points((0.0, 0.0))) == {"gs_own_left_out": 1, "gs_images": 1}


@pytest.mark.parametrize("factor", [math.nan, math.inf, 0.0])
def test_what_has_no_direction_gives_no_number(factor: float) -> None:
    row = measured(Moved(PGD_2, factor=factor), points((0.5, 0.0), (0.0, 0.5)))
    assert row == {"gs_own_left_out": 2, "gs_images": 2}


@pytest.mark.parametrize("name", ["ft", "slf"])
def test_natural_images_do_not_diverge_from_themselves(name: str) -> None:
    """Autograd's gradient of that divergence is rounding, and no zero."""
    method = METHODS[name](PGD_2)
    model = prepared(method, resnet())
    x, y = images(4, size=4)[0]
    divergence = method.objectives(deepcopy(model).eval().requires_grad_(True), Batch(x, y, x))["adv-ce-vs-kl"][1]
    assert not divergence.any() and divergence.requires_grad
    row = GradientSimilarity(model, method, [(x, y)])(1)
    assert row == {"gs_adv_ce_vs_kl_left_out": 4, "gs_images": 4, "gs_seconds": row["gs_seconds"]}


def test_a_head_of_zeros_sends_no_gradient_to_the_backbone() -> None:
    method, model = ALF(PGD_2), resnet()
    method.prepare(model)
    row = GradientSimilarity(model, method, images(4))(1)
    assert row["gs_adv_ce_vs_kl_left_out"] == 4 and "gs_adv_ce_vs_kl" not in row


@pytest.mark.parametrize("statistics", ["shared", "adversarial-only", "dual"])
def test_eq8_does_not_depend_on_what_the_branch_would_learn(statistics: Any) -> None:
    """Constants in the branch's place give the same; its own norms, which only one loss reaches, do not count."""

    class Constants(AutoLoRa):
        def objectives(self, model: RobustModel, batch: Batch) -> dict[str, Pair]:
            natural = model.through("natural", batch.x).data.softmax(dim=1)
            adversarial = model(batch.x_adv).log_softmax(dim=1)
            divergence = (natural * (natural.log() - adversarial)).sum(dim=1)
            return {"eq8": (F.nll_loss(adversarial, batch.y, reduction="none"), divergence)}

    method, data = AutoLoRa(PGD_2, rank=2, statistics=statistics), images(4)
    model = prepared(method, resnet())
    constants = naive(model, Constants(PGD_2), data)["eq8"]
    assert_summary(GradientSimilarity(model, method, data)(1), "gs_eq8", constants)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@every_method
def test_the_extractor_is_the_backbone_and_the_affine_copies_of_branches(name: str) -> None:
    model = resnet()
    backbone = count(model.backbone)
    affine = sum(count(module) for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d))
    METHODS[name](PGD_2).prepare(model)
    found = extractor_parameters(model)
    assert sum(parameter.numel() for parameter in found) == backbone + affine * name.startswith("twins")
    assert len({id(parameter) for parameter in found}) == len(found)


LEFT_ALONE = [AutoLoRa(PGD_2, rank=2), LoFT(PGD_2, rank=2), TwinsTRADES(PGD_2), VanillaRFT(PGD_2), SLF(PGD_2)]


@pytest.mark.parametrize("method", LEFT_ALONE, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("failing", [False, True])
def test_measuring_leaves_the_model_and_the_random_numbers_alone(
    method: Method, failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = deepcopy(method)
    model = prepared(method, resnet())
    model.backbone.eval()  # modes are mixed, and some parameters have a gradient
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.ndim == 1 else None
    before, modes = deepcopy(dict(model.state_dict())), [module.training for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    probe, rng = GradientSimilarity(model, method, images(2)), torch.get_rng_state()
    if failing:
        monkeypatch.setattr(method, "objectives", broken)
    with pytest.raises(Stopped) if failing else nullcontext():
        probe(1)
    assert torch.equal(torch.get_rng_state(), rng)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == required
    for parameter in model.parameters():
        assert parameter.grad is None if parameter.ndim > 1 else bool((parameter.grad == 1).all())  # type: ignore[union-attr]


class Stopped(Exception):
    """What a method of somebody else may raise."""


def broken(model: RobustModel, batch: Batch) -> dict[str, Pair]:
    raise Stopped


def problem(count: int) -> TensorDataset:
    """Noise with one brighter channel, the class."""
    y = torch.arange(count) % 3
    x = 0.8 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x[torch.arange(count), y] += 0.1
    return TensorDataset(x, y)


def train(folder: Path, method: Method, *, probing: bool) -> tuple[RobustModel, TrainingState, Tensor]:
    torch.manual_seed(3)
    model, data = resnet(), problem(16)
    clean: DataLoader[Any] = DataLoader(data, 8)  # draws the seeds of its workers from the global generator
    shuffled: DataLoader[Any] = DataLoader(data, 8, shuffle=True)
    probe = GradientSimilarity(model, method, clean, images=12) if probing else None
    state = fit(
        model,
        method,
        shuffled,
        clean,
        Constant(0.05),
        Accelerator(cpu=True),
        epochs=2,
        val_attack=PGD_2,
        checkpoints=Checkpoints(folder),
        probe=probe,
        progress=False,
    )
    return model, state, torch.rand(4)


@pytest.mark.parametrize("kind", [AutoLoRa, LoFT, TwinsTRADES])
def test_training_is_the_same_to_the_bit_with_and_without(kind: type[Method], tmp_path: Path) -> None:
    plain, before, drawn = train(tmp_path / "without", kind(PGD_2), probing=False)
    model, state, numbers = train(tmp_path / "with", kind(PGD_2), probing=True)
    torch.testing.assert_close(dict(model.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    assert torch.equal(drawn, numbers)
    clock = ("seconds", "images_per_second", "waiting")
    for row, other in zip(state.history, before.history, strict=True):
        assert all(row[name] == value for name, value in other.items() if name not in clock)
    assert [row.get("gs_images") for row in state.history] == [12, 12]
    names = {name for name in state.history[1] if name.startswith("gs_adv")}
    assert names == {"gs_adv_ce_vs_kl", "gs_adv_ce_vs_kl_se", "gs_adv_ce_vs_kl_left_out"}
    assert all(math.isfinite(value) for row in state.history for value in row.values())


def without_clock(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "gs_seconds"}


def test_an_epoch_is_measured_with_the_same_random_numbers_every_time() -> None:
    method, data = VanillaRFT(PGD_2), images(4)
    model = prepared(method, resnet())
    probe = GradientSimilarity(model, method, data, every=3)
    assert [bool(probe(epoch)) for epoch in range(1, 7)] == [False, False, True] * 2
    torch.manual_seed(5)
    first = without_clock(probe(3))
    assert without_clock(probe(6)) == first
    assert without_clock(replace(probe, seed=1)(3)) != first


@pytest.mark.parametrize("most", [3, 4, 100])
def test_the_first_images_are_measured_and_no_others(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = VanillaRFT(PGD_2), images(5)
    monkeypatch.setattr(method, "attack", lambda model, x, y: 0.8 * x)  # the same for few images and for many
    model = prepared(method, resnet())
    row = GradientSimilarity(model, method, data, images=most)(1)
    assert_summary(row, "gs_eq3", naive(model, method, data)["eq3"][:most])
    assert row["gs_images"] == min(most, 5)


def test_measuring_is_in_full_precision_whatever_surrounds_it() -> None:
    method, data = VanillaRFT(PGD_2), images(3)
    probe = GradientSimilarity(prepared(method, resnet()), method, data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = without_clock(probe(1))
    assert without_clock(probe(1)) == inside


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every": 0}, "every 1 or more"), ({"images": 0}, "needs 1 image"), ({"estimate": "mean"}, "image .* or batch")],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GradientSimilarity(resnet(), FT(PGD_2), [], **options)
