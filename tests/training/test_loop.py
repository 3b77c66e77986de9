"""The loop against stochastic gradient descent by hand, the replay of its epochs, and runs that stop and continue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from timm.models import build_model_with_cfg
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from autolora.attacks import PGD, Forward, Objective
from autolora.evaluation import accuracy
from autolora.losses import cross_entropy_each
from autolora.methods import AT, FT, Accuracy, AutoLoRa, Batch, Losses, Method
from autolora.models import RobustModel
from autolora.models.backbones import split
from autolora.models.resnet_cifar import CifarResNet
from autolora.schedules import AutoLR, Constant, Schedule
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, Optimization, TrainingError, TrainingState, fit

PGD_2 = PGD(ThreatModel("8/255"), steps=2)
VAL_PGD = PGD(ThreatModel("8/255"), steps=2, start="natural")
Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def tiny() -> RobustModel:
    return split(build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=4), classes=3)


def problem(count: int, seed: int) -> TensorDataset:
    """Noise with one brighter channel, the class: learnable, not at once, and within reach of an attack."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.8 * torch.rand(count, 3, 8, 8, generator=generator)
    x[torch.arange(count), y] += 0.1
    return TensorDataset(x, y)


def loader(data: TensorDataset, size: int = 8, **options: Any) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(data, size, **options)  # type: ignore[arg-type]


def train(
    folder: Path,
    model: RobustModel,
    method: Method,
    schedule: Schedule | None = None,
    *,
    epochs: int = 2,
    data: DataLoader[tuple[Tensor, Tensor]] | None = None,
    val_attack: PGD = VAL_PGD,
    **options: Any,
) -> TrainingState:
    return fit(
        model,
        method,
        data if data is not None else loader(problem(24, seed=1), shuffle=True),
        loader(problem(30, seed=2)),  # uneven: the last batch holds 6
        schedule or Constant(0.05),
        Accelerator(cpu=True),
        epochs=epochs,
        val_attack=val_attack,
        checkpoints=Checkpoints(folder),
        progress=False,
        **options,
    )


@dataclass
class Snapshots:
    """Passed as ``on_epoch``: what the model holds after each epoch."""

    model: RobustModel
    weights: list[Weights] = field(default_factory=list)

    def __call__(self, state: TrainingState) -> None:
        self.weights.append(deepcopy(dict(self.model.state_dict())))


def assert_same(ours: Weights, theirs: Weights) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_test_split_is_no_argument() -> None:
    assert not [name for name in signature(fit).parameters if "test" in name]


def test_training_is_stochastic_gradient_descent_on_the_sum_of_the_terms(tmp_path: Path) -> None:
    """v = 0.9 v + g + 1e-4 w and w = w - lr v, with the papers' momentum and weight decay as defaults."""

    @dataclass
    class TwoTerms(FT):
        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            return {**super().loss(model, batch), "size": 0.01 * model.head.weight.square().sum()}

    model, data = tiny(), problem(16, seed=1)
    reference = deepcopy(model)
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    x, y = data.tensors
    means = []
    for _ in range(2):
        terms = []
        for rows in (slice(0, 8), slice(8, 16)):
            natural = F.cross_entropy(reference(x[rows]), y[rows])
            size = 0.01 * reference.head.weight.square().sum()
            grads = torch.autograd.grad(natural + size, list(reference.parameters()))
            with torch.no_grad():
                for w, v, g in zip(reference.parameters(), velocity, grads, strict=True):
                    v.mul_(0.9).add_(g + 1e-4 * w)
                    w.sub_(0.05 * v)
            terms.append((natural.item(), size.item()))
        means.append([sum(column) / 2 for column in zip(*terms, strict=True)])

    after = Snapshots(model)
    state = train(tmp_path, model, TwoTerms(PGD_2), data=loader(data), on_epoch=after)
    torch.testing.assert_close(after.weights[-1], dict(reference.state_dict()), rtol=1e-4, atol=1e-5)
    logged = [[row["natural"], row["size"]] for row in state.history]
    torch.testing.assert_close(torch.tensor(logged), torch.tensor(means), rtol=1e-4, atol=1e-5)


def test_metrics_have_the_names_of_the_interface(tmp_path: Path) -> None:
    state = train(tmp_path, tiny(), AutoLoRa(PGD_2, rank=2))
    assert [row["epoch"] for row in state.history] == [1, 2] and state.epoch == 2
    for row in state.history:
        around = ("epoch", "lr", "lambda1", "lambda2", "val_natural", "val_robust", "seconds", "images_per_second")
        assert set(row) == {*around, "waiting", "natural", "adversarial", "consistency"}
        assert 0 <= row["waiting"] <= 1
        assert row["seconds"] > 0 and row["images_per_second"] == pytest.approx(24 / row["seconds"])
        assert 0 <= row["val_robust"] <= 1 and 0 <= row["val_natural"] <= 1
    assert state.seconds == pytest.approx(sum(row["seconds"] for row in state.history))


@dataclass
class RiseAndFall(Method):
    """Learns natural images for two epochs, and then unlearns."""

    selects_on: ClassVar[Literal["robust", "natural"]] = "natural"
    epoch: int = 0

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
        self.epoch += 1

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        term = F.cross_entropy(model(batch.x), batch.y)
        return {"natural": term if self.epoch <= 2 else -term}


class RobustlySelected(RiseAndFall):
    selects_on = "robust"


@dataclass(frozen=True)
class DarkInTheSecond(PGD):
    """Leaves the images of a validation set alone, but in the second epoch, where it blackens them."""

    batches: list[int] = field(default_factory=list)

    def __call__(self, model: Forward, x: Tensor, target: Tensor, objective: Objective = cross_entropy_each) -> Tensor:
        self.batches.append(len(x))
        return torch.zeros_like(x) if 30 < sum(self.batches) <= 60 else x


@pytest.mark.parametrize("kind", [RiseAndFall, RobustlySelected])
def test_the_model_left_is_the_best_epochs_by_replay(tmp_path: Path, kind: type[RiseAndFall]) -> None:
    model, attack = tiny(), PGD_2.threat
    after = Snapshots(model)
    state = train(tmp_path, model, kind(PGD_2), epochs=4, on_epoch=after, val_attack=DarkInTheSecond(attack))

    val, dark = loader(problem(30, seed=2)), DarkInTheSecond(attack)
    replayed: list[tuple[float, float]] = []
    for weights in after.weights:
        fresh = tiny().eval()
        fresh.load_state_dict(weights)
        replayed.append((accuracy(fresh, val).accuracy, accuracy(fresh, val, dark).accuracy))
    assert [(row["val_natural"], row["val_robust"]) for row in state.history] == replayed

    natural, robust = ([score[column] for score in replayed] for column in (0, 1))
    scores, others = (robust, natural) if kind is RobustlySelected else (natural, robust)
    best = scores.index(max(scores))
    assert best != 3 and best != others.index(max(others))  # else the last epoch, or the other score, would do
    assert state.best == scores[best]
    assert_same(dict(model.state_dict()), after.weights[best])
    assert_same(load_file(tmp_path / "best" / "model.safetensors"), after.weights[best])


def test_robust_validation_is_under_the_attack(tmp_path: Path) -> None:
    model = tiny()
    after = Snapshots(model)
    state = train(tmp_path, model, AT(PGD_2), on_epoch=after)
    robust = []
    for weights in after.weights:
        fresh = tiny().eval()
        fresh.load_state_dict(weights)
        robust.append(accuracy(fresh, loader(problem(30, seed=2)), VAL_PGD).accuracy)
    assert [row["val_robust"] for row in state.history] == robust
    assert robust != [row["val_natural"] for row in state.history]


def test_of_equal_epochs_the_first_is_kept(tmp_path: Path) -> None:
    model = tiny()
    after = Snapshots(model)
    state = train(tmp_path, model, FT(PGD_2), Constant(1e-12), data=frozen_statistics(model), on_epoch=after)
    assert state.history[0]["val_natural"] == state.history[1]["val_natural"]
    assert_same(dict(model.state_dict()), after.weights[0])


def frozen_statistics(model: RobustModel) -> DataLoader[tuple[Tensor, Tensor]]:
    """Keep the running statistics from moving, so that nothing changes from one epoch to the next but counts."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return loader(problem(24, seed=1), shuffle=True)


@dataclass(frozen=True)
class Watched(Optimization):
    """An optimization whose optimizer a test can look at."""

    made: list[torch.optim.SGD] = field(default_factory=list)

    def optimizer(self, trained: list[torch.nn.Parameter], lr: float) -> torch.optim.SGD:
        self.made.append(super().optimizer(trained, lr))
        return self.made[-1]

    def buffers(self) -> list[Tensor]:
        return [state["momentum_buffer"].clone() for state in self.made[0].state.values() if state]


class BackAfter(Constant):
    """Halves the rate and asks for the best weights after one given epoch; looks at the run when it does."""

    def __init__(self, lr: float, epoch: int, look: Callable[[], None]) -> None:
        super().__init__(lr)
        self.back, self.look = epoch, look

    def rate(self, epoch: int) -> float:
        return self.initial / 2 if epoch >= self.back else self.initial

    def observe(self, score: float) -> bool:
        super().observe(score)
        if self.epoch == self.back:
            self.look()
        return self.epoch == self.back


@pytest.mark.parametrize("reset", [False, True])
def test_going_back_restores_the_weights_and_keeps_the_momentum_unless_told(tmp_path: Path, reset: bool) -> None:
    model, watched = tiny(), Watched(reset_momentum=reset)
    before: list[Weights] = []
    momentum: list[list[Tensor]] = []

    def look() -> None:
        before.append(deepcopy(dict(model.state_dict())))
        momentum.append(watched.buffers())

    after = Snapshots(model)

    def on_epoch(state: TrainingState) -> None:
        after(state)
        momentum.append(watched.buffers())

    schedule = BackAfter(0.05, epoch=4, look=look)
    state = train(tmp_path, model, RiseAndFall(PGD_2), schedule, epochs=5, optimization=watched, on_epoch=on_epoch)
    scores = [row["val_natural"] for row in state.history]
    best = scores.index(max(scores[:4]))
    assert best < 3 and scores[3] < scores[best]  # going back is a change

    assert_same(after.weights[3], after.weights[best])  # parameters and running statistics
    assert not all(torch.equal(before[0][name], after.weights[3][name]) for name in before[0])
    at_restore, behind = momentum[3], momentum[4]  # three epochs, the look, the fourth epoch
    assert at_restore and all(buffer.any() for buffer in at_restore)
    if reset:
        assert behind == []
    else:
        torch.testing.assert_close(behind, at_restore, rtol=0, atol=0)
    assert [row["lr"] for row in state.history] == [0.05] * 4 + [0.025]


def test_the_rate_of_the_schedule_is_the_optimizers(tmp_path: Path) -> None:
    watched, used = Watched(), []

    @dataclass
    class Looking(FT):
        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            used.append(watched.made[0].param_groups[0]["lr"])
            return super().loss(model, batch)

    schedule = BackAfter(0.05, epoch=1, look=lambda: None)
    state = train(tmp_path, tiny(), Looking(PGD_2), schedule, optimization=watched)
    assert used == [0.05] * 3 + [0.025] * 3
    assert [row["lr"] for row in state.history] == [0.05, 0.025]


def test_training_ends_when_the_schedule_does(tmp_path: Path) -> None:
    """Two halvings of 0.05 lie below the minimum: after the second checkpoint nothing is left to do."""
    schedule = AutoLR(0.05, epochs=6, checkpoints=[0, 1, 2], rho=1, minimum=0.02)
    schedule._too_few_rises = lambda before, now: True  # type: ignore[method-assign]
    state = train(tmp_path, tiny(), FT(PGD_2), schedule, epochs=6)
    assert [row["lr"] for row in state.history] == [0.05, 0.05, 0.025] and state.epoch == 3


class Stopped(BaseException):
    """What Ctrl-C raises, or a kill does not even raise."""


@dataclass
class StoppedInLoss(AutoLoRa):
    """AutoLoRa that is stopped at a step of the whole run; never, by default."""

    stop_at: int = -1
    steps: int = 0

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        self.steps += 1
        if self.steps == self.stop_at:
            raise Stopped
        return super().loss(model, batch)


@dataclass(frozen=True)
class Run:
    weights: Weights
    last: Any
    state: TrainingState
    rng: Tensor
    drawn: Tensor


def run(folder: Path, seed: int, stop_at: int = -1, stop_after: int = -1, **options: Any) -> Run:
    """Train AutoLoRa for four epochs with all that is random, and a schedule that goes back to the best."""

    def on_epoch(state: TrainingState) -> None:
        if state.epoch == stop_after:
            raise Stopped

    torch.manual_seed(seed)
    model, method = tiny(), StoppedInLoss(PGD_2, rank=2, stop_at=stop_at)
    schedule = AutoLR(0.1, epochs=4, checkpoints=[0, 1, 2, 3], rho=1.0, condition1="apgd")
    state = train(folder, model, method, schedule, epochs=4, on_epoch=on_epoch, **options)
    last = torch.load(folder / "last" / "state.pt", weights_only=True)
    return Run(deepcopy(dict(model.state_dict())), last, state, torch.get_rng_state(), torch.rand(3))


def scores(state: TrainingState) -> list[dict[str, float]]:
    clock = ("seconds", "images_per_second", "waiting")
    return [{name: value for name, value in row.items() if name not in clock} for row in state.history]


STOPS = pytest.mark.parametrize(
    "stops",
    [({"stop_after": 2},), ({"stop_at": 8},), ({"stop_at": 1},), ({"stop_after": 1}, {"stop_at": 5})],
    ids=["after an epoch", "within one", "within the first", "twice"],
)


@STOPS
def test_a_run_that_stops_and_continues_is_the_uninterrupted_one(
    tmp_path: Path, stops: tuple[dict[str, int], ...]
) -> None:
    """Three batches an epoch; other weights and random numbers stand in for the new process, but for a fresh start."""
    whole = run(tmp_path / "whole", seed=1)
    assert len({row["lr"] for row in whole.state.history}) > 1  # the schedule went back at least once
    folder, resume = tmp_path / "parts", False
    for number, stop in enumerate(stops):
        with pytest.raises(Stopped):
            run(folder, seed=1 + 100 * number, resume=resume, **stop)
        resume = True
    fresh = not (folder / "last").exists()
    parts = run(folder, seed=1 if fresh else 99, resume=True)

    assert_same(parts.weights, whole.weights)
    assert_same(load_file(folder / "last" / "model.safetensors"), load_file(tmp_path / "whole/last/model.safetensors"))
    assert_same(load_file(folder / "best" / "model.safetensors"), load_file(tmp_path / "whole/best/model.safetensors"))
    assert scores(parts.state) == scores(whole.state)
    assert (parts.state.epoch, parts.state.best) == (4, whole.state.best)
    assert parts.last["schedule"] == whole.last["schedule"]
    torch.testing.assert_close(parts.last["optimizer"], whole.last["optimizer"], rtol=0, atol=0)
    assert torch.equal(*(part.last["processes"][0]["random"]["torch"] for part in (parts, whole)))
    assert torch.equal(parts.rng, whole.rng) and torch.equal(parts.drawn, whole.drawn)


def test_continuing_a_finished_run_trains_no_more_and_gives_the_same_model(tmp_path: Path) -> None:
    whole = run(tmp_path, seed=1)
    again = run(tmp_path, seed=2, resume=True, stop_at=1)
    assert_same(again.weights, whole.weights)
    assert again.state == whole.state


def test_without_resume_a_run_starts_anew(tmp_path: Path) -> None:
    first = run(tmp_path, seed=1)
    assert scores(run(tmp_path, seed=1).state) == scores(first.state)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_epoch_before(tmp_path: Path, value: float) -> None:
    @dataclass
    class Diverging(FT):
        steps: int = 0

        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            self.steps += 1
            losses = super().loss(model, batch)
            return losses if self.steps != 6 else {"natural": losses["natural"] * value}

    model = tiny()
    after = Snapshots(model)
    with pytest.raises(TrainingError, match=r"diverged.*lower --lr"):
        train(tmp_path, model, Diverging(PGD_2), on_epoch=after)
    (first,) = after.weights
    assert_same(load_file(tmp_path / "last" / "model.safetensors"), first)
    assert all(tensor.isfinite().all() for tensor in first.values())


@dataclass
class Spy(AutoLoRa):
    """Write down what is called, and in which modes the modules are then."""

    seen: list[tuple[str, frozenset[bool]]] = field(default_factory=list)

    def look(self, call: str, model: RobustModel) -> None:
        self.seen.append((call, frozenset(module.training for module in model.modules())))

    def prepare(self, model: RobustModel) -> None:
        super().prepare(model)
        self.seen.append(("prepare", frozenset()))

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
        self.look("begin_epoch", model)
        super().begin_epoch(model, accuracy)

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        self.look("attack", model)
        return super().attack(model, x, y)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        self.look("loss", model)
        return super().loss(model, batch)

    def finalize(self, model: RobustModel) -> None:
        super().finalize(model)
        self.seen.append(("finalize", frozenset()))


def test_a_method_is_called_in_the_modes_it_was_promised(tmp_path: Path) -> None:
    method, model = Spy(PGD_2, rank=2), tiny().eval()
    train(tmp_path, model, method)
    step = [("attack", frozenset({False})), ("loss", frozenset({True}))]
    epoch = [("begin_epoch", frozenset({False})), *step * 3]
    assert method.seen == [("prepare", frozenset()), *epoch * 2, ("finalize", frozenset())]


def test_validation_sees_the_model_in_evaluation_mode_and_learns_nothing(tmp_path: Path) -> None:
    model, seen = tiny(), []
    val = problem(30, seed=2).tensors[0]

    def hook(module: torch.nn.Module, arguments: tuple[Tensor]) -> None:
        if torch.equal(arguments[0][:1], val[:1]):
            seen.append(module.training)

    model.register_forward_pre_hook(hook)
    after = Snapshots(model)
    train(tmp_path, model, FT(PGD_2), epochs=1, on_epoch=after)
    assert seen and not any(seen)
    tracked = {int(tensor) for name, tensor in after.weights[0].items() if name.endswith("num_batches_tracked")}
    assert tracked == {3}  # the training batches


@pytest.mark.parametrize(("drop_last", "share"), [(True, 4 / 16), (False, 4 / 20)])
def test_the_accuracy_of_a_method_counts_every_training_image(tmp_path: Path, drop_last: bool, share: float) -> None:
    """Of 20 images in batches of 8 a way is right on numbers 12 to 15, the second half of the second batch."""
    x, y = problem(20, seed=1).tensors

    def way(images: Tensor) -> Tensor:
        numbers = [int((x == image).flatten(1).all(dim=1).nonzero()) for image in images]
        return F.one_hot(torch.tensor([(int(y[i]) + (i not in range(12, 16))) % 3 for i in numbers]), 3).float()

    measured = []

    @dataclass
    class Measuring(FT):
        def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
            measured.append(accuracy(way))

    data = loader(TensorDataset(x, y), drop_last=drop_last)
    train(tmp_path, tiny(), Measuring(PGD_2), data=data)
    assert measured == [share, share]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"augmented": False}, [8, 8, 4]),
        ({"augmented": False, "images": 9}, [8, 8]),
        ({"augmented": False, "images": 8}, [8]),
        ({"augmented": False, "images": 100}, [8, 8, 4]),
        ({"images": 1}, [6]),
    ],
)
def test_a_method_measures_on_what_it_asks_for(tmp_path: Path, options: dict[str, Any], expected: list[int]) -> None:
    """The clean images come in batches of 8 and in a fixed order, those of training in batches of 6, shuffled."""
    clean, seen = problem(20, seed=3), []

    @dataclass
    class Measuring(FT):
        def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
            def way(images: Tensor) -> Tensor:
                seen.append(images)
                return model(images)

            seen.clear()
            accuracy(way, **options)

    data = loader(problem(18, seed=1), 6, shuffle=True)
    train(tmp_path, tiny(), Measuring(PGD_2), data=data, clean=loader(clean))
    assert [len(images) for images in seen] == expected
    if not options.get("augmented", True):
        assert torch.equal(torch.cat(seen), clean.tensors[0][: sum(expected)])


def test_a_method_cannot_measure_on_clean_images_that_nobody_gave(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clean"):
        train(tmp_path, tiny(), AutoLoRa(PGD_2, rank=2, measured_on="clean"))


def test_what_a_probe_measures_joins_the_row_of_its_epoch(tmp_path: Path) -> None:
    """And it sees the weights of that epoch, also where the schedule then goes back to better ones."""
    model, after = tiny(), []

    class Back(Constant):
        def observe(self, score: float) -> bool:
            return super().observe(score) or True

    def probe(epoch: int) -> dict[str, float]:
        after.append(deepcopy(dict(model.named_parameters())))
        return {"probed": 10.0 * epoch} if epoch == 2 else {}

    state = train(tmp_path, model, RiseAndFall(PGD_2), Back(0.05), epochs=4, probe=probe)
    assert [row.get("probed") for row in state.history] == [None, 20.0, None, None]
    assert all(not torch.equal(a["head.weight"], b["head.weight"]) for a, b in pairwise(after))


def test_the_attack_and_the_loss_are_in_the_precision_asked_for(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []

    @dataclass
    class Precise(FT):
        def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
            seen.append(("attack", torch.is_autocast_enabled("cpu")))
            return x

        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            seen.append(("loss", torch.is_autocast_enabled("cpu")))
            losses = super().loss(model, batch)
            assert losses["natural"].dtype == torch.float32
            return losses

    model = tiny()
    train(tmp_path, model, Precise(PGD_2), epochs=1, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    assert set(seen) == {("attack", True), ("loss", True)}
    assert all(p.dtype == torch.float32 for p in model.parameters())
