"""Two processes that hold a model together: each its part, and the same weights as two that hold it whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader, TensorDataset
from two_processes import what_two_find

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.methods import METHODS, AutoLoRa, Batch, Method
from autolora.models import RobustModel, build_model
from autolora.models.backbones import split
from autolora.schedules import Constant, Schedule
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, Step, TrainingError, TrainingState, fit
from autolora.training.replicas import accelerator_for
from autolora.training.sharding import ON_CPU, blocks, divide, divided, held, whole

CPU = torch.device("cpu")
CLOCK = ("seconds", "images_per_second", "waiting")
STILL = PGD(ThreatModel("8/255"), steps=2, start="natural")  # without chance
WAYS: dict[str, Callable[[], Method]] = {name: partial(method, STILL) for name, method in METHODS.items()} | {
    "autolora, all layers": lambda: AutoLoRa(STILL, targets="all"),
    "autolora, dual": lambda: AutoLoRa(STILL, statistics="dual"),
}


class GoingBack(Constant):
    """Goes back to the best weights after every epoch."""

    def observe(self, score: float) -> bool:
        return True


def transformer() -> RobustModel:
    sizes: Any = {"img_size": 8, "patch_size": 4, "depth": 2, "embed_dim": 24, "num_heads": 2}
    size = {"input_size": (3, 8, 8)}
    model = split(timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=size, **sizes), classes=3)
    return model.to(memory_format=torch.channels_last)


def seeded(seed: int, make: Callable[[], RobustModel] = transformer) -> RobustModel:
    torch.manual_seed(seed)
    return make()


def small(name: str, **sizes: Any) -> RobustModel:
    """Return a small network of a family, for 32 x 32 pixels."""
    overlay = {"input_size": (3, 32, 32)}
    return split(timm.create_model(name, pretrained_cfg_overlay=overlay, **sizes), classes=3)


SWIN: Any = {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2)}
FAMILIES: dict[str, Callable[[], RobustModel]] = {
    "convnext": partial(small, "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)),
    "swin": partial(small, "swin_tiny_patch4_window7_224", **SWIN),
}


def loader(count: int, seed: int, size: int = 8) -> DataLoader[tuple[Tensor, Tensor]]:
    x = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, torch.arange(count) % 3), 8)  # type: ignore[arg-type]


def train(
    folder: Path, model: RobustModel, method: Method, schedule: Schedule | None = None, **options: Any
) -> TrainingState:
    """Train on three batches of eight an epoch, and validate on 31 images, which no two processes share evenly."""
    settings = {"epochs": 1, "shard": True} | options
    size = model.architecture.input_size[-1]
    data = loader(24, 1, size), loader(31, 2, size)
    rate = schedule or Constant(0.05)
    return fit(
        model,
        method,
        *data,
        rate,
        accelerator_for(CPU, "fp32"),
        val_attack=STILL,
        checkpoints=Checkpoints(folder),
        progress=False,
        **settings,
    )


def in_process(rank: int, folder: Path) -> None:
    """Be one of two processes, and write down what came of it."""
    found: dict[str, Any] = {}
    for name, make in WAYS.items():
        for kind in ("shards", "replicas"):
            model = seeded(rank)  # the first process's weights are those of both
            state = train(folder / name / kind, model, make(), shard=kind == "shards")
            scores = {key: value for key, value in state.history[-1].items() if key not in CLOCK}
            found[f"{name} {kind}"] = {"weights": dict(model.state_dict()), "row": scores}
    for name, family in FAMILIES.items():
        for kind in ("shards", "replicas"):
            model = seeded(rank, family)
            train(folder / name / kind, model, WAYS["autolora"](), shard=kind == "shards")
            found[f"{name} {kind}"] = dict(model.state_dict())
    for name, sessions in {"at once": (3,), "in sessions": (1, 2, 3), "last as replicas": (2, 3)}.items():
        for epochs in sessions:
            model, method, whole = seeded(rank), WAYS["autolora"](), name == "last as replicas" and epochs == 3
            train(folder / name, model, method, GoingBack(0.05), epochs=epochs, resume=epochs > 1, shard=not whole)
        found[name] = dict(model.state_dict())
    found["parts"] = seeded(rank)
    train(folder / "parts", found["parts"], WAYS["at"](), accumulate=2)
    found["parts"] = dict(found["parts"].state_dict())
    found["sizes"] = sizes(seeded(rank))
    found["diverged"] = diverged(folder / "diverged", rank)
    torch.save(found, folder / f"{rank}.pt")


def sizes(model: RobustModel) -> dict[str, list[int]]:
    """Count the numbers that a process holds, between batches and within one."""
    accelerator, count = accelerator_for(CPU, "fp32"), sum(p.numel() for p in model.parameters())
    step, shards = held(Step(model, WAYS["at"]()), accelerator, True)
    trained = list(model.parameters())
    optimizer = torch.optim.SGD(trained, 0.1, momentum=0.9)
    shards.gather()
    within = own(model.parameters())
    x = torch.rand(4, 3, 8, 8)
    sum(step(Batch(x, torch.arange(4) % 3, x)).values()).backward()
    shards.release()
    optimizer.step()
    momentum = [kept["momentum_buffer"] for kept in optimizer.state.values()]
    gradients = [p.grad for p in trained if p.grad is not None]
    return {"all": [count], "within": [within], "between": [own(trained), own(gradients), own(momentum)]}


def diverged(folder: Path, rank: int) -> str:
    """Spoil a weight that the second process holds, after the last loss of an epoch, and return what is said."""
    steps: list[int] = []

    def spoil(optimizer: torch.optim.Optimizer, *_: object) -> None:
        steps.append(1)
        if len(steps) == 3 and rank == 1:
            optimizer.param_groups[0]["params"][-1].to_local().detach().fill_(torch.nan)

    hook = register_optimizer_step_post_hook(spoil)
    try:
        train(folder, seeded(rank), WAYS["at"]())
    except TrainingError as error:
        return str(error)
    finally:
        hook.remove()
    return "went on"


def own(tensors: Any) -> int:
    return sum((t.to_local() if isinstance(t, DTensor) else t).numel() for t in tensors)


on_a_cpu = pytest.mark.skipif(torch.__version__ < ON_CPU, reason="this torch divides models on GPUs alone")


def test_a_torch_that_cannot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.1+cpu"))
    with pytest.raises(InputError, match=r"torch 2\.8\.1\+cpu divides models on GPUs alone; .* install 2\.9 or newer"):
        divide(Step(transformer(), WAYS["at"]()), CPU, processes=2)


def test_one_process_has_nobody_to_share_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one process has nobody to share a model with"):
        train(tmp_path, transformer(), WAYS["at"]())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ended with."""
    return what_two_find(in_process, tmp_path_factory.mktemp("both"))


@on_a_cpu
@pytest.mark.parametrize("name", WAYS)
def test_shards_learn_what_replicas_learn(name: str, both: list[dict[str, Any]]) -> None:
    """Also the first process's weights are those of both, and both ship the same model, without a branch."""
    shards, replicas = both[0][f"{name} shards"], both[0][f"{name} replicas"]
    torch.testing.assert_close(shards["weights"], replicas["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both[1][f"{name} shards"]["weights"], shards["weights"], rtol=0, atol=0)
    assert both[0][f"{name} shards"]["row"] == both[1][f"{name} shards"]["row"]
    assert shards["row"] == pytest.approx(replicas["row"], rel=1e-4, abs=1e-6)
    start = seeded(0).state_dict()
    assert max(float((w - start[key]).abs().max()) for key, w in shards["weights"].items()) > 1e-3


@on_a_cpu
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_without_batch_norm_can_be_held_in_parts(name: str, both: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(both[0][f"{name} shards"], both[0][f"{name} replicas"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both[1][f"{name} shards"], both[0][f"{name} shards"], rtol=0, atol=0)


@on_a_cpu
def test_a_process_holds_its_half_between_batches_and_the_weights_alone_within_one(both: list[dict[str, Any]]) -> None:
    for rank in both:
        (count,), (within,), between = (rank["sizes"][key] for key in ("all", "within", "between"))
        assert within == count
        assert all(0.45 * count < part < 0.55 * count for part in between)


@on_a_cpu
def test_all_stop_where_the_part_of_one_is_no_number(both: list[dict[str, Any]]) -> None:
    for rank in both:
        assert rank["diverged"].startswith("training diverged: weights are not finite in batch 3 of 3")


@on_a_cpu
def test_a_run_in_sessions_is_the_run_at_once_to_the_bit(both: list[dict[str, Any]]) -> None:
    for rank in both:
        torch.testing.assert_close(rank["in sessions"], rank["at once"], rtol=0, atol=0)


@on_a_cpu
def test_a_checkpoint_of_shards_is_one_of_replicas(both: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(both[0]["last as replicas"], both[0]["at once"], rtol=1e-4, atol=1e-5)


@on_a_cpu
def test_the_parts_of_a_batch_add_up_to_it(both: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(both[0]["parts"], both[0]["at shards"]["weights"], rtol=1e-4, atol=1e-5)


def test_batch_norm_is_refused() -> None:
    model = build_model("resnet20_cifar", classes=3, weights="none")
    with pytest.raises(InputError, match="has batch norm"):
        divide(Step(model, WAYS["at"]()), CPU, processes=2)


def test_blocks_are_elements_of_lists_inner_ones_first() -> None:
    model = build_model("swin_tiny_patch4_window7_224", classes=3, weights="none", image_size=32)
    names = {id(module): name for name, module in model.backbone.named_modules()}
    found = [names[id(block)] for block in blocks(model.backbone)]
    assert found.index("layers.2.blocks.5") < found.index("layers.2")
    assert sum(name.count(".") == 1 for name in found) == 4 and sum(".blocks." in name for name in found) == 12
    assert len(set(found)) == len(found)


def test_what_is_whole_already_stays_as_it_is() -> None:
    tensor, content = torch.rand(3), {"a": [torch.zeros(1), 2], "b": None}
    assert whole(content) == content and divided(tensor, nn.Parameter(tensor)) is tensor
