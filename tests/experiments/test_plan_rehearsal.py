"""A forecast counts what a run does: the steps and images of ``fit`` itself are counted beside it, for every method."""

from __future__ import annotations

import mmap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autolora.attacks import PGD
from autolora.experiments import assessment
from autolora.experiments.config import RunConfig
from autolora.experiments.ingredients import prepare
from autolora.experiments.plan import run_plan
from autolora.experiments.planning import measuring
from autolora.experiments.planning.measuring import PeakMemory, cost_of
from autolora.experiments.planning.rehearsal import before_epoch, rehearse
from autolora.experiments.planning.stage import set_up
from autolora.experiments.run import run
from autolora.training import Checkpoints, epoch
from autolora.training.update import Update

Small = Callable[..., RunConfig]
CPU = torch.device("cpu")


@pytest.fixture
def small(photos: Path, tmp_path: Path) -> Small:
    """Options of a run of a second."""

    def config(**options: Any) -> RunConfig:
        network: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "batch_size": 8}
        shared: dict[str, Any] = {"attack": "pgd-2", "device": "cpu", "precision": "fp32", "track": "none"}
        return RunConfig(str(photos), **(network | shared | {"out": str(tmp_path / "run")} | options))

    return config


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time everything but training steps once, after its warm-up: here the counts are looked at."""
    monkeypatch.setattr(measuring, "ENOUGH", 0.0)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the steps, judged images and checkpoints of whatever runs."""
    found: Counter[str] = Counter()

    def counting(module: Any, name: str, note: Callable[..., None]) -> None:
        real = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            note(result, *arguments)
            return result

        monkeypatch.setattr(module, name, counted)

    def judged(where: str) -> Callable[..., None]:
        def note(result: Any, way: Any, batches: Any, attack: PGD | None = None) -> None:
            found[f"{where}, {'attacked' if attack else 'natural'}"] += len(result.label)

        return note

    counting(Update, "__call__", lambda *_: found.update(["steps"]))
    counting(Checkpoints, "save_last", lambda *_: found.update(["checkpoints"]))
    counting(epoch, "verdicts", judged("epoch"))
    counting(assessment, "verdicts", judged("test"))
    return found


@pytest.mark.parametrize("options", [{}, {"method_options": {"measured_on": "epoch"}, "gradient_similarity": 2}])
def test_steps_and_judged_images_are_those_of_the_run(
    small: Small, counts: Counter[str], options: dict[str, Any]
) -> None:
    config = small(epochs=3, schedule="constant", **options)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    forecast, check = run_plan(config, 60.0, progress=False)
    assert torch.equal(torch.rand(3), expected)  # a plan disturbs no random numbers
    assert check is None and not Path(config.folder).exists()
    found = {item.name: item for item in forecast.items()}
    counts.clear()
    run(config, progress=False)
    assert found["training"].count == counts["steps"]
    assert found["checkpoints"].count == counts["checkpoints"]
    assert found["validation"].count == counts["epoch, attacked"]
    assert found["validation"].count + found["measuring"].count == counts["epoch, natural"]
    assert found["test"].count == counts["test, natural"] == counts["test, attacked"]
    if options:
        assert found["gradient-similarity"].count == 1 and found["gradient-similarity"].seconds > 0


# a second network, adapters, a frozen backbone, no attack; a branch is above
@pytest.mark.parametrize("method", ["twins-at", "loft", "alf", "ft"])
def test_every_kind_of_method_is_tried_as_it_is_and_left_without_branches(small: Small, method: str) -> None:
    config = small(method=method, epochs=2, attack="one-step", accumulate=2)
    parts = prepare(config, progress=False)
    stage = set_up(parts)
    costs = rehearse(stage)
    assert costs.step.each > 0 and costs.validation.each > 0 and costs.test.each > 0 and costs.checkpoint.each > 0
    assert not parts.model.branches
    assert all(measuring.seconds >= 0 for measuring in costs.measuring)
    assert not list(Path(parts.config.folder).parent.iterdir())


def test_a_sample_that_a_method_measures_on_is_whole_batches_of_what_there_is(small: Small) -> None:
    def measured(**options: Any) -> int:
        config = small(batch_size=5, epochs=1, method_options=options)
        return before_epoch(set_up(prepare(config, progress=False))).images

    train = len(prepare(small(), progress=False).splits.train)
    assert measured(measured_on="clean") == train
    assert measured(measured_images=7) == 10  # two batches of five
    assert measured() == train // 5 * 5  # the last batch is left out


@pytest.mark.parametrize(
    ("seconds", "least", "each", "calls"),
    [
        ([0.6, 0.01, 0.10, 0.02], 1, 0.01, 4),  # the median of three; the warm-up does not count
        ([9.0, 4.0, 8.0, 2.0], 1, 2.0, 2),  # long in itself
        ([9.0, 4.0, 8.0, 2.0], 3, 2.0, 4),  # but three were asked for
        ([1.0, 1.0, 3.0, 7.0], 1, 1.0, 3),  # two of them were enough
    ],
)
def test_the_time_of_work_is_the_median_after_a_warm_up(
    seconds: list[float], least: int, each: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, done = [0.0], list[float]()

    def work(x: torch.Tensor, y: torch.Tensor) -> None:
        done.append(seconds[len(done)])
        clock[0] += done[-1]

    monkeypatch.setattr(measuring, "ENOUGH", 3.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    cost = cost_of([(torch.zeros(2), torch.zeros(2))], work, CPU, least=least)
    assert cost.each == pytest.approx(each) and len(done) == calls


def test_the_peak_is_seen_though_the_memory_is_given_back() -> None:
    with PeakMemory(CPU) as before:
        pass
    # new pages of the system: an allocator may have as much left from other tests, which shows no peak
    with PeakMemory(CPU) as during, mmap.mmap(-1, 256 * 2**20) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        until = time.monotonic() + 10
        while during.mib <= before.mib + 200 and time.monotonic() < until:
            time.sleep(measuring.EVERY)
    assert during.mib > before.mib + 200
