"""A run that is stopped anywhere and continued is the uninterrupted one, to the bit; and what stops it is said."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from timm.models import build_model_with_cfg
from torch import Tensor, nn

from autolora.attacks import PGD, Forward, Objective
from autolora.data import ImageSet, UnreadableImage, loader
from autolora.data.pixels import SmallPixels
from autolora.errors import InputError, RunError
from autolora.losses import cross_entropy_each
from autolora.methods import AT, FT, Accuracy, AutoLoRa, Batch, LoFT, Losses, Method, TwinsTRADES
from autolora.models import RobustModel
from autolora.models.backbones import split
from autolora.models.resnet_cifar import CifarResNet
from autolora.schedules import AutoLR
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, LoadingError, TrainingError, TrainingState, fit
from autolora.training.draws import Draws
from forked import context, end_together, free_port

PGD_1 = PGD(ThreatModel("8/255"), steps=1)
EVERY_BATCH = 1e-9  # minutes
BATCHES = 4  # in an epoch
Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


class Killed(BaseException):
    """What nothing catches, as nothing catches SIGKILL."""


@dataclass(frozen=True, eq=False)
class Watched(ImageSet):
    """Images that note which of them are asked for, and may fail."""

    asked: list[int] = field(default_factory=list)
    before: Callable[[Sequence[int]], object] = len  # of no consequence

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.before(indices)
        self.asked.extend(indices)
        return super().__getitems__(indices)


def images(count: int = 26, **options: Any) -> Watched:
    """Noise with one brighter channel, the class; augmented, so that every batch draws random numbers."""
    generator = torch.Generator().manual_seed(7)
    pixels = SmallPixels(count, 8)
    pixels.images = torch.randint(0, 200, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 3
    pixels.images[torch.arange(count), labels] += 50
    names = tuple(f"{index}.png" for index in range(count))
    return Watched(pixels, tuple(range(count)), labels, names, augmenting=True, **options)


def tiny() -> RobustModel:
    return split(build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=4), classes=3)


@dataclass(frozen=True)
class Trained:
    weights: Weights
    state: TrainingState
    momentum: list[Tensor]
    random: Tensor
    model: RobustModel


def train(
    folder: Path,
    make: Callable[[], Method],
    *,
    seed: int = 1,
    data: ImageSet | None = None,
    workers: int = 0,
    epochs: int = 3,
    model: RobustModel | None = None,
    val_attack: PGD = PGD_1,
    **options: Any,
) -> Trained:
    """Train with all that is random, and a schedule that goes back to the best weights."""
    torch.manual_seed(seed)
    model = model or tiny()
    data = data or images()
    state = fit(
        model,
        make(),
        loader(data, 6, shuffle=True, drop_last=True, num_workers=workers),
        loader(data.with_augmentation(False), 10),
        AutoLR(0.05, epochs=epochs, checkpoints=list(range(epochs)), rho=1.0, condition1="apgd"),
        Accelerator(cpu=True),
        epochs=epochs,
        val_attack=val_attack,
        checkpoints=Checkpoints(folder),
        clean=loader(data.with_augmentation(False), 10),
        names=data.names,
        progress=False,
        **options,
    )
    last = torch.load(folder / "last" / "state.pt", weights_only=True)
    momentum = [state["momentum_buffer"] for state in last["optimizer"]["state"].values()]
    return Trained(deepcopy(dict(model.state_dict())), state, momentum, torch.get_rng_state(), model)


def rows(trained: Trained) -> list[dict[str, float]]:
    clock = ("seconds", "images_per_second", "waiting")
    return [{name: value for name, value in row.items() if name not in clock} for row in trained.state.history]


def assert_same(ours: Trained, theirs: Trained) -> None:
    torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=0)
    torch.testing.assert_close(ours.momentum, theirs.momentum, rtol=0, atol=0)
    assert rows(ours) == rows(theirs)
    assert torch.equal(ours.random, theirs.random)


def at_step(number: int, action: Callable[[], None]) -> Callable[[type[Method]], Callable[..., Method]]:
    """Make methods that do something while they compute the loss of a step, counted from 1 in each process."""

    def of(cls: type[Method]) -> Callable[..., Method]:
        def make(**options: Any) -> Method:
            method, steps = cls(PGD_1, **options), []
            whole = method.loss

            def loss(model: RobustModel, batch: Batch) -> Losses:
                steps.append(1)
                if len(steps) == number:
                    action()
                return whole(model, batch)

            method.loss = loss  # type: ignore[method-assign]
            return method

        return make

    return of


def kill() -> None:
    raise Killed


METHODS: dict[str, Callable[[Callable[..., Any]], Callable[[], Method]]] = {
    "autolora": lambda wrap: lambda: wrap(AutoLoRa)(rank=2),
    "dual norms, some clean images": lambda wrap: (
        lambda: wrap(AutoLoRa)(rank=2, statistics="dual", measured_on="clean", measured_images=10)
    ),
    "twins-trades": lambda wrap: lambda: wrap(TwinsTRADES)(),
    "loft": lambda wrap: lambda: wrap(LoFT)(rank=2),
    "at": lambda wrap: lambda: wrap(AT)(),
}


def plain(cls: type[Method]) -> Callable[..., Method]:
    return lambda **options: cls(PGD_1, **options)


@cache
def whole(workers: int = 0, epochs: int = 3) -> Trained:
    """Train AutoLoRa without an interruption; once for all tests that compare with it."""
    with TemporaryDirectory() as folder:
        return train(Path(folder), METHODS["autolora"](plain), workers=workers, epochs=epochs)


# with workers: when none, one and both of them have drawn; a pass of workers is slow to start
@pytest.mark.parametrize(
    ("step", "workers"), [*((step, 0) for step in range(1, 2 * BATCHES + 2)), (2, 2), (4, 2), (7, 2)]
)
def test_killed_in_any_batch(tmp_path: Path, workers: int, step: int) -> None:
    """Saved after every batch, killed in one of them: in the first, in the last of an epoch, in the next epoch."""
    make = METHODS["autolora"]
    with pytest.raises(Killed):
        train(tmp_path, make(at_step(step, kill)), workers=workers, checkpoint_minutes=EVERY_BATCH)
    seed = 9 if (tmp_path / "last").exists() else 1  # stands for a new process
    assert_same(train(tmp_path, make(plain), seed=seed, workers=workers, resume=True), whole(workers))


@pytest.mark.parametrize("name", METHODS)
def test_killed_with_any_method(tmp_path: Path, name: str) -> None:
    make = METHODS[name]
    expected = train(tmp_path / "whole", make(plain), epochs=2)
    with pytest.raises(Killed):
        train(tmp_path / "part", make(at_step(BATCHES + 3, kill)), checkpoint_minutes=EVERY_BATCH, epochs=2)
    assert_same(train(tmp_path / "part", make(plain), seed=9, resume=True, epochs=2), expected)


def test_images_that_were_seen_are_not_decoded_again(tmp_path: Path) -> None:
    make = METHODS["at"]
    with pytest.raises(Killed):
        train(tmp_path, make(at_step(3, kill)), checkpoint_minutes=EVERY_BATCH, epochs=1)
    data, whole = images(), images()
    train(tmp_path / "whole", make(plain), epochs=1, data=whole)
    train(tmp_path, make(plain), seed=9, epochs=1, data=data, resume=True)
    training = whole.asked[: 6 * BATCHES]
    assert data.asked[: 6 * (BATCHES - 2)] == training[12:]  # two batches were learnt from


@dataclass(frozen=True)
class SignalInValidation(PGD):
    """Sends a signal in the validation of an epoch."""

    number: int = 0
    at: int = 4  # the first batch of the second epoch's
    calls: list[int] = field(default_factory=list)

    def __call__(self, model: Forward, x: Tensor, target: Tensor, objective: Objective = cross_entropy_each) -> Tensor:
        self.calls.append(len(x))
        if len(self.calls) == self.at:
            os.kill(os.getpid(), self.number)
        return super().__call__(model, x, target, objective)


@dataclass
class SignalInBeginEpoch(AutoLoRa):
    """Sends a signal while it measures before the second epoch."""

    epochs: int = 0

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
        self.epochs += 1
        if self.epochs == 2:
            os.kill(os.getpid(), signal.SIGINT)
        super().begin_epoch(model, accuracy)


class Terminated(KeyboardInterrupt):
    pass


@pytest.fixture
def signals() -> None:
    """SIGINT and SIGTERM as the command line has them, also where these tests run in the background."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
@pytest.mark.parametrize("step", [1, BATCHES, BATCHES + 1])
def test_a_signal_waits_for_the_batch_and_saves(
    tmp_path: Path, number: int, end: type[BaseException], step: int
) -> None:
    make = METHODS["autolora"]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(end) as caught:
        train(tmp_path / "part", make(at_step(step, lambda: os.kill(os.getpid(), number))), epochs=2)
    assert type(caught.value) is end
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert_same(train(tmp_path / "part", make(plain), seed=9, epochs=2, resume=True), whole(epochs=2))


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_validation_at_once(tmp_path: Path, number: int) -> None:
    make = METHODS["autolora"](plain)
    attack = SignalInValidation(PGD_1.threat, steps=1, number=number)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", make, epochs=2, val_attack=attack)
    assert len(attack.calls) == 4  # of six: the validation was not finished
    with pytest.raises(KeyboardInterrupt):  # and once more
        again = SignalInValidation(PGD_1.threat, steps=1, number=number, at=2)
        train(tmp_path / "part", make, seed=8, epochs=2, val_attack=again, resume=True)
    learnt: list[int] = []
    resumed = METHODS["autolora"](at_step(1, lambda: learnt.append(1)))
    assert_same(train(tmp_path / "part", resumed, seed=9, epochs=2, resume=True), whole(epochs=2))
    assert not learnt  # only the validation was left to do


def ending(rows: Sequence[int]) -> None:
    """End all processes of a run, as schedulers do, from one of its workers."""
    if 5 in rows and torch.utils.data.get_worker_info() is not None:
        for process in (os.getpid(), os.getppid()):
            os.kill(process, signal.SIGTERM)


@pytest.mark.usefixtures("signals")
def test_a_signal_to_all_processes_lets_workers_finish(tmp_path: Path) -> None:
    make = METHODS["at"](plain)
    expected = train(tmp_path / "whole", make, workers=2, epochs=1)
    with pytest.raises(Terminated):
        train(tmp_path / "part", make, workers=2, epochs=1, data=images(before=ending))
    assert_same(train(tmp_path / "part", make, seed=9, workers=2, epochs=1, resume=True), expected)


@pytest.mark.usefixtures("signals")
def test_a_signal_ends_measuring_before_an_epoch_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", lambda: SignalInBeginEpoch(PGD_1, rank=2), epochs=2)
    assert_same(train(tmp_path / "part", METHODS["autolora"](plain), seed=9, epochs=2, resume=True), whole(epochs=2))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # the best weights are a second name of a file
    path.write_bytes(data)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_the_run_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed in the third epoch: the last checkpoint is within it, and the one before too."""
    make = METHODS["autolora"]
    with pytest.raises(Killed):
        train(tmp_path / "part", make(at_step(2 * BATCHES + 3, kill)), checkpoint_minutes=EVERY_BATCH)
    flip(tmp_path / "part" / "last" / "state.pt")
    assert_same(train(tmp_path / "part", make(plain), seed=9, resume=True), whole())
    assert f"damaged checkpoint: {tmp_path / 'part' / 'last'} is damaged: state.pt is not what" in caplog.text
    assert f"going on from {tmp_path / 'part' / 'previous'}" in caplog.text


def test_the_best_weights_of_an_older_checkpoint_are_its_own(tmp_path: Path) -> None:
    """Best weights that came after the checkpoint are not what it goes back to."""
    make = METHODS["autolora"]
    with pytest.raises(Killed):
        train(tmp_path / "part", make(at_step(BATCHES + 2, kill)), checkpoint_minutes=EVERY_BATCH)
    best = tmp_path / "part" / "best" / "model.safetensors"
    other = {name: torch.zeros_like(tensor) for name, tensor in load_file(best).items()}
    save_file(other, best)
    assert_same(train(tmp_path / "part", make(plain), seed=9, resume=True), whole())


@dataclass
class Remembering(FT):
    """A method with every kind of memory that a checkpoint can hold; each moves with every batch."""

    def __post_init__(self) -> None:
        self.seen, self.shares, self.mean = 0, {"x": [0.5]}, torch.zeros(3)
        self.teacher = nn.Linear(3, 3)
        self.generator = torch.Generator().manual_seed(3)
        self.lock = object()  # no checkpoint can hold this

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
        self.pgd = PGD(ThreatModel(self.pgd.threat.radius / 2), steps=1)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        self.seen += 1
        noise = torch.rand(3, generator=self.generator)
        self.mean = 0.9 * self.mean + noise
        self.shares = {"x": [*self.shares["x"], float(noise[0])]}
        with torch.no_grad():
            for parameter in self.teacher.parameters():
                parameter.mul_(0.9)
        pull = (model(batch.x) - self.teacher(self.mean)).square().mean()
        weight = self.seen + sum(self.shares["x"]) + 1000 * self.pgd.threat.radius
        return {**super().loss(model, batch), "pull": 0.01 * weight * pull}


def test_what_a_method_remembers_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def stopping() -> Method:
        return at_step(BATCHES + 3, kill)(Remembering)()

    expected = train(tmp_path / "whole", lambda: Remembering(PGD_1), epochs=2)
    assert "method Remembering keeps lock, which no checkpoint can hold" in caplog.text
    with pytest.raises(Killed):
        train(tmp_path / "part", stopping, checkpoint_minutes=EVERY_BATCH, epochs=2)
    assert_same(train(tmp_path / "part", lambda: Remembering(PGD_1), seed=9, epochs=2, resume=True), expected)


def in_process(rank: int, port: int, folder: Path, step: int | None, seed: int) -> None:
    """Be one of two processes; what each ends with goes into a file."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()} | {"ACCELERATE_USE_CPU": "true"})
    torch.set_num_threads(1)
    make = METHODS["autolora"](plain if step is None else at_step(step, lambda: os._exit(3)))
    resume = (folder / "last").exists()
    trained = train(folder, make, seed=seed + rank, epochs=2, checkpoint_minutes=EVERY_BATCH, resume=resume)
    torch.save((trained.weights, rows(trained), trained.random), folder / f"{rank}.pt")


def in_two_processes(folder: Path, step: int | None = None, seed: int = 1) -> list[Any]:
    """Train in two processes, which both die in a step; return what each has ended with."""
    server, port = context(), free_port()
    processes = [server.Process(target=in_process, args=(rank, port, folder, step, seed)) for rank in range(2)]
    for process in processes:
        process.start()
    end_together(processes, expected=0 if step is None else 3)
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("?.pt"))]


@pytest.mark.slow
def test_several_processes_get_their_own_random_numbers_back(tmp_path: Path) -> None:
    """Each attacks images of its own, from starts of its own; a batch of both is one step, and two make an epoch."""
    expected = in_two_processes(tmp_path / "whole")
    assert not torch.equal(expected[0][2], expected[1][2])
    for step in (3, 4):  # the first and the last batch of the second epoch
        folder = tmp_path / f"killed in {step}"
        in_two_processes(folder, step)
        assert (folder / "last").exists()
        torch.testing.assert_close(in_two_processes(folder, seed=9), expected, rtol=0, atol=0)
    with pytest.raises(InputError, match="started with 2 processes, not 1"):
        train(folder, METHODS["autolora"](plain), epochs=2, resume=True)


# faults on the way


def unreadable(rows: Sequence[int]) -> None:
    if 5 in rows:
        raise UnreadableImage("cat/5.png", "No such file or directory")


@dataclass(frozen=True)
class Dying:
    """Ends one of the processes that load images, as the system does when memory runs out.

    Args:
        worker: Which.
        mark: A file; without one it dies before its first batch, with one before its second, when the file is there.
    """

    worker: int
    mark: Path | None = None
    asked: list[int] = field(default_factory=list)

    def __call__(self, rows: Sequence[int]) -> None:
        info = torch.utils.data.get_worker_info()
        self.asked.append(1)
        if info is None or info.id != self.worker or len(self.asked) < (1 if self.mark is None else 2):
            return
        while self.mark is not None and not self.mark.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


DIED = r"^a process that loads images has died \(DataLoader worker \(pid(\(s\))? \d+\) [^()]*\)$"


@pytest.mark.parametrize(
    ("before", "workers", "message"),
    [
        (unreadable, 0, r"cat/5\.png can no longer be read \(No such file or directory\)"),
        (unreadable, 2, r"cat/5\.png can no longer be read \(No such file or directory\)"),
        (Dying(0), 2, DIED),  # of the first batch, for which the main process waits
    ],
    ids=["unreadable-0", "unreadable-2", "dying-2"],
)
def test_images_that_cannot_be_loaded_end_the_run_in_good_order(
    tmp_path: Path, before: Callable[[Sequence[int]], object], workers: int, message: str
) -> None:
    make = METHODS["at"](plain)
    expected = train(tmp_path / "whole", make, workers=workers, epochs=1)
    with pytest.raises(LoadingError, match=message) as caught:
        train(tmp_path / "part", make, workers=workers, epochs=1, data=images(before=before))
    assert "\n" not in str(caught.value)
    assert not active_children()  # though the error, which is kept, remembers who was at work
    parts = train(tmp_path / "part", make, seed=9, workers=workers, epochs=1, resume=True)
    assert_same(parts, expected)


def test_a_worker_that_dies_while_a_batch_is_learnt_leaves_the_batch_before(tmp_path: Path) -> None:
    """Torch raises its error wherever the main process is: in the middle of a step nothing can be saved."""
    mark = tmp_path / "in the second step"

    def learning() -> None:
        mark.touch()
        time.sleep(60)  # the error ends it

    make = METHODS["at"]
    expected = train(tmp_path / "whole", make(plain), workers=2, epochs=1)
    part, data = tmp_path / "part", images(before=Dying(1, mark))  # it has the fourth batch too, which is not awaited
    started = time.monotonic()
    with pytest.raises(LoadingError, match=DIED):
        train(part, make(at_step(2, learning)), workers=2, epochs=1, data=data, checkpoint_minutes=EVERY_BATCH)
    assert time.monotonic() - started < 60 and not active_children()
    state = torch.load(part / "last" / "state.pt", weights_only=True)
    assert state["processes"][0]["partial"]["batches"] == 1
    assert_same(train(part, make(plain), seed=9, workers=2, epochs=1, resume=True), expected)


def breaking(error: Exception) -> Iterator[Any]:
    """Be a loader whose first batch does not come."""
    raise error
    yield


RESET = ConnectionResetError(104, "Connection reset by peer")
KILLED = "DataLoader worker (pid 7) is killed by signal: Killed."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RESET, "[Errno 104] Connection reset by peer"),
        (EOFError(), "EOFError"),  # which says nothing
        (RuntimeError("Pin memory thread exited unexpectedly"), "Pin memory thread exited unexpectedly"),
        (RuntimeError(f"{KILLED} \n"), KILLED),
    ],
    ids=repr,
)
def test_what_is_left_of_a_worker_that_died_is_said_in_one_line(error: Exception, said: str) -> None:
    draws = Draws(loader(images(), 2, num_workers=2), Accelerator(cpu=True))
    draws.loader = breaking(error)
    with pytest.raises(LoadingError) as caught:
        next(iter(draws))
    assert str(caught.value) == f"a process that loads images has died ({said})"


@pytest.mark.parametrize(("error", "workers"), [(RESET, 0), (EOFError(), 0), (RuntimeError("out of tune"), 2)])
def test_what_is_no_worker_is_left_as_it_is(error: Exception, workers: int) -> None:
    draws = Draws(loader(images(), 2, num_workers=workers), Accelerator(cpu=True))
    draws.loader = breaking(error)
    with pytest.raises(type(error)) as caught:
        next(iter(draws))
    assert caught.value is error


def test_an_error_early_in_a_pass_leaves_no_workers() -> None:
    draws = Draws(loader(images(before=unreadable), 2, num_workers=2), Accelerator(cpu=True))
    with pytest.raises(LoadingError) as caught:  # in the third of 13 batches
        list(draws)
    assert "5.png" in str(caught.value) and not active_children()


def test_a_loss_that_is_not_finite_names_its_images_and_goes_back(tmp_path: Path) -> None:
    @dataclass
    class Diverging(FT):
        steps: int = 0

        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            self.steps += 1
            losses = super().loss(model, batch)
            return losses if self.steps < 7 else {"natural": losses["natural"] * float("nan")}

    model, data = tiny(), images()
    with pytest.raises(TrainingError, match="training diverged: natural nan in batch 3 of 4; lower --lr") as caught:
        train(tmp_path, lambda: Diverging(PGD_1), model=model, data=data, checkpoint_minutes=EVERY_BATCH)
    assert len(caught.value.images) == 6
    seen = data.asked[-12:-6]  # the loader is a batch ahead
    assert caught.value.images == tuple(data.names[index] for index in seen)
    saved = load_file(tmp_path / "last" / "model.safetensors")
    torch.testing.assert_close(dict(model.state_dict()), saved, rtol=0, atol=0)
    state = torch.load(tmp_path / "last" / "state.pt", weights_only=True)
    assert state["processes"][0]["partial"]["batches"] == 2


@dataclass
class Greedy(FT):
    """Out of memory for more than so many images at once, after the forward pass."""

    room: int = 5
    attempts: list[int] = field(default_factory=list)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        losses = super().loss(model, batch)
        self.attempts.append(len(batch.y))
        if len(batch.y) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses


def test_out_of_memory_halves_batches_and_keeps_the_gradient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without batch norm in the way, halves are the whole but for rounding."""

    class Frozen(FT):
        def begin_training(self, model: RobustModel) -> None:
            model.eval()

    class FrozenGreedy(Greedy):
        def begin_training(self, model: RobustModel) -> None:
            model.eval()

    method = FrozenGreedy(PGD_1)
    expected = train(tmp_path / "whole", lambda: Frozen(PGD_1), epochs=1)
    halves = train(tmp_path / "halves", lambda: method, epochs=1)
    assert method.attempts == [6] + [3, 3] * BATCHES  # tried once
    torch.testing.assert_close(halves.weights, expected.weights, rtol=1e-5, atol=1e-6)
    assert halves.state.history[0]["natural"] == pytest.approx(expected.state.history[0]["natural"], rel=1e-5)
    (said,) = [record for record in caplog.records if "out of memory" in record.message]
    assert "a batch of 6 images: from here on in two halves of 3" in said.message
    assert "batch norm normalises each half by itself" in said.message


def test_a_failed_attempt_leaves_no_trace_in_batch_norm(tmp_path: Path) -> None:
    halves = train(tmp_path, lambda: Greedy(PGD_1), epochs=1)
    counts = {int(tensor) for name, tensor in halves.weights.items() if name.endswith("num_batches_tracked")}
    assert counts == {2 * BATCHES}  # two halves a batch, and not the attempt


def test_a_run_in_halves_is_resumed_in_halves(tmp_path: Path) -> None:
    expected = train(tmp_path / "whole", lambda: Greedy(PGD_1), epochs=2)
    with pytest.raises(Killed):
        train(tmp_path / "part", lambda: at_step(2 * BATCHES + 6, kill)(Greedy)(), epochs=2)
    assert_same(train(tmp_path / "part", lambda: Greedy(PGD_1), seed=9, epochs=2, resume=True), expected)


def test_out_of_memory_for_half_a_batch_is_the_end(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="out of memory with a batch of 6 images, in two halves; lower --batch-size"):
        train(tmp_path, lambda: Greedy(PGD_1, room=2), epochs=1)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    class Broken(FT):
        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            return {"natural": F.cross_entropy(torch.zeros(2, 3), batch.y)}

    with pytest.raises(ValueError, match="batch_size"):
        train(tmp_path, lambda: Broken(PGD_1), epochs=1)
