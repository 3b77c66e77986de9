"""Two processes that train one model: the gradient of the joined batch, replicas that stay alike, one score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.models import build_model_with_cfg
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from two_processes import what_two_find

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.evaluation import accuracy
from autolora.methods import AT, METHODS, AutoLoRa, Method
from autolora.models import RobustModel
from autolora.models.backbones import split
from autolora.models.resnet_cifar import CifarResNet
from autolora.models.robust import Architecture, Normalize
from autolora.schedules import Constant
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, TrainingState, fit
from autolora.training.replicas import accelerator_for, whole_shares

CPU = torch.device("cpu")
STILL = PGD(ThreatModel("8/255"), steps=2, start="natural")  # without chance, so that one process can do the same
ABSENT = PGD(ThreatModel(0), steps=1)
VAL_IMAGES = 31  # neither even nor whole batches


def with_norms() -> RobustModel:
    return split(build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=4), classes=3)


def without_norms() -> RobustModel:
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    architecture = Architecture("none", "fc", (3, 8, 8))
    return RobustModel(Normalize((0.5,) * 3, (0.25,) * 3), backbone, nn.Linear(8, 3), architecture)


def images(count: int, seed: int) -> TensorDataset:
    y = torch.arange(count) % 3
    x = 0.8 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    x[torch.arange(count), y] += 0.1
    return TensorDataset(x, y)


def loader(data: TensorDataset) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(data, 8)  # type: ignore[arg-type]


def train(folder: Path, model: RobustModel, method: Method, accumulate: int = 1) -> TrainingState:
    """Train on three batches of eight, in the order of the images."""
    return fit(
        model,
        method,
        loader(images(24, seed=1)),
        loader(images(VAL_IMAGES, seed=2)),
        Constant(0.05),
        accelerator_for(CPU, "fp32"),
        epochs=1,
        val_attack=STILL,
        checkpoints=Checkpoints(folder),
        accumulate=accumulate,
        progress=False,
    )


def test_each_run_has_its_own_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate keeps those of the first one in a process. The GPU is only pretended, and nothing computes on it."""
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests before this one
    assert accelerator_for(CPU, "fp32").device.type == "cpu"
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(torch.cuda, "set_device", lambda device: None)
        assert accelerator_for(torch.device("cuda"), "fp32").device.type == "cuda"
        assert accelerator_for(torch.device("cuda"), "fp16").mixed_precision == "fp16"
    found = accelerator_for(CPU, "fp32")
    assert (found.device.type, found.mixed_precision) == ("cpu", "no")
    with monkeypatch.context() as patched:
        patched.setitem(AcceleratorState._shared_state, "mark", True)
        accelerator_for(CPU, "fp32")
        assert "mark" in AcceleratorState._shared_state  # nothing changed: nothing is forgotten


def test_what_the_program_around_a_run_has_set_up_is_left_alone() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    theirs = Accelerator(cpu=True, mixed_precision="bf16")
    try:
        with pytest.raises(InputError, match="has set up accelerate for cpu with mixed_precision=bf16"):
            accelerator_for(CPU, "fp32")
        assert theirs.mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def seeded(make: Callable[[], RobustModel], seed: int = 0) -> RobustModel:
    torch.manual_seed(seed)
    return make()


EQUAL: dict[str, Callable[[], Method]] = {
    "at": lambda: AT(STILL),
    "autolora": lambda: AutoLoRa(ABSENT, targets="all"),
    "loft": lambda: METHODS["loft"](ABSENT),
}


@dataclass
class Watched(AutoLoRa):
    """Keeps what the model was before each batch, in evaluation mode, and what the attack made."""

    digests: list[str] = field(default_factory=list)
    made: list[Tensor] = field(default_factory=list)

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        self.digests.append(digest(model))
        x_adv = super().attack(model, x, y)
        self.made.append((x_adv - x).clone())
        return x_adv


def digest(model: RobustModel) -> str:
    return sha256(b"".join(t.contiguous().numpy().tobytes() for t in model.state_dict().values())).hexdigest()


def in_process(rank: int, folder: Path) -> None:
    """Be one of two processes, and write down what came of it."""
    found: dict[str, Any] = {}
    for name, make in EQUAL.items():
        model = seeded(without_norms, seed=rank)  # the first process's weights are those of both
        train(folder / name, model, make())
        found[name] = dict(model.state_dict())
    model = seeded(without_norms)
    train(folder / "parts", model, EQUAL["at"](), accumulate=2)
    found["parts"] = dict(model.state_dict())
    attack = PGD(ThreatModel("8/255"), steps=1)
    watched, model = Watched(attack, measured_on="epoch"), seeded(with_norms, seed=rank)
    state = train(folder / "watched", model, watched)
    found |= {"digests": [*watched.digests, digest(model)], "made": watched.made, "row": state.history[-1]}
    found["alone"] = accuracy(model.eval(), loader(images(VAL_IMAGES, seed=2))).accuracy
    found["robust alone"] = accuracy(model, loader(images(VAL_IMAGES, seed=2)), STILL).accuracy
    for name in set(METHODS) - set(EQUAL):
        torch.manual_seed(rank)
        model = with_norms()
        train(folder / name, model, METHODS[name](PGD(ThreatModel("8/255"), steps=1)))
        found[name] = digest(model)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ended with."""
    return what_two_find(in_process, tmp_path_factory.mktemp("both"))


@pytest.mark.parametrize("name", EQUAL)
def test_without_norms_two_processes_end_where_one_ends_on_the_joined_batch(
    name: str, both: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = seeded(without_norms)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    train(tmp_path, model, EQUAL[name]())
    torch.testing.assert_close(both[0][name], dict(model.state_dict()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1][name], both[0][name], rtol=0, atol=0)
    assert max(float((tensor - before[key]).abs().max()) for key, tensor in model.state_dict().items()) > 1e-3


def test_without_norms_the_parts_of_a_batch_add_up_to_it(both: list[dict[str, Any]], tmp_path: Path) -> None:
    """Three uneven parts in one process; two in each of two processes, which exchange gradients once."""
    model, in_parts = seeded(without_norms), seeded(without_norms)
    state = train(tmp_path / "whole", model, EQUAL["at"]())
    other = train(tmp_path / "parts", in_parts, EQUAL["at"](), accumulate=3)
    for weights in (dict(in_parts.state_dict()), both[0]["parts"], both[1]["parts"]):
        torch.testing.assert_close(weights, dict(model.state_dict()), rtol=1e-5, atol=1e-6)
    (name,) = {"adversarial", "natural"} & state.history[0].keys()
    assert other.history[0][name] == pytest.approx(state.history[0][name], rel=1e-5)


def test_replicas_are_the_same_to_the_bit_before_every_batch_and_in_the_end(both: list[dict[str, Any]]) -> None:
    """Weights and running statistics, which each process gathers from images of its own."""
    assert both[0]["digests"] == both[1]["digests"]
    assert len(set(both[0]["digests"])) == 4


def test_each_process_attacks_from_starts_of_its_own(both: list[dict[str, Any]]) -> None:
    assert not torch.allclose(both[0]["made"][0], both[1]["made"][0])
    assert all(len(made) == 4 for rank in both for made in rank["made"])  # half of a batch of eight


def test_the_score_is_of_every_validation_image_once(both: list[dict[str, Any]]) -> None:
    for rank in both:
        assert rank["row"]["val_natural"] == rank["alone"]
        assert rank["row"]["val_robust"] == rank["robust alone"]
        assert rank["row"]["lambda1"] == both[0]["row"]["lambda1"]
        assert rank["row"]["natural_accuracy"] == both[0]["row"]["natural_accuracy"]


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(EQUAL)))
def test_every_method_trains_replicas_that_are_alike(name: str, both: list[dict[str, Any]]) -> None:
    assert both[0][name] == both[1][name]


def test_shares_are_whole() -> None:
    assert [whole_shares(256, n) for n in (1, 2, 3)] == [256, 256, 258]
