"""The schedules against the released controller read naively, and against torch's own schedulers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from autolora.errors import InputError
from autolora.schedules import (
    SCHEDULES,
    AutoLR,
    Constant,
    Cosine,
    MultiStep,
    Planned,
    Schedule,
    build_schedule,
)
from autolora.schedules.automatic import Condition1, Condition2


def run(schedule: Schedule, scores: list[float]) -> tuple[list[float], list[int]]:
    """Return the rate after each epoch, and the 1-based epochs at which the schedule asked to restore the best."""
    rates, restored = [], []
    for epoch, score in enumerate(scores, start=1):
        if schedule.observe(score):
            restored.append(epoch)
        rates.append(schedule.lr)
        if schedule.stopped:
            break
    return rates, restored


def reference(scores: list[float], w: list[int], lr: float, condition1: str, condition2: str) -> list[float]:
    """The released controller, with its parallel lists per checkpoint; AutoPGD's readings as further cases."""
    ra: list[float] = []
    eta, best, halved = [lr] + [0.0] * (len(w) - 1), [0.0] * len(w), [True] + [False] * (len(w) - 1)
    index, now, rates = 1, lr, []
    for epoch, score in enumerate(scores, start=1):
        ra.append(score)
        best[index] = max(ra)
        if epoch - 1 == w[index]:
            n = w[index] - w[index - 1]
            up = len([j for j in range(w[index - 1], w[index]) if ra[j + 1] > ra[j]])
            down = len([j for j in range(w[index - 1], w[index]) if ra[j + 1] < ra[j]])
            first = {"code": up < 0.75 * n, "apgd": up <= 0.75 * n, "literal": down <= 0.75 * n}[condition1]
            unchanged = best[index] == best[index - 1]
            second = unchanged and (eta[index] == eta[index - 1] if condition2 == "code" else not halved[index - 1])
            halved[index] = first or second
            if halved[index]:
                now /= 2
                eta[index] = now
            if index < len(w) - 1:
                index += 1
                best[index], eta[index] = best[index - 1], eta[index - 1]
        rates.append(now)
        if now < 1e-5:
            break
    return rates


def curve(seed: int, epochs: int) -> list[float]:
    """A learning curve of accuracies over 20 images (ties are common), or over 1,000 (they are not)."""
    draw = random.Random(seed)
    images = draw.choice([20, 1000])
    noise, rise = draw.choice([0.01, 0.1, 0.5]), draw.choice([0.0, 0.005, 0.02])
    return [round(images * min(1, max(0, 0.3 + rise * e + draw.gauss(0, noise)))) / images for e in range(epochs)]


@pytest.mark.parametrize("condition1", ["code", "apgd", "literal"])
@pytest.mark.parametrize("condition2", ["code", "apgd"])
def test_auto_equals_the_released_controller_on_random_curves(condition1: Condition1, condition2: Condition2) -> None:
    for seed in range(1000):
        scores = curve(seed, 60)
        rates, _ = run(AutoLR(condition1=condition1, condition2=condition2), scores)
        assert rates == reference(scores, list(range(0, 60, 4)), 0.01, condition1, condition2), f"curve {seed}"


def test_auto_equals_the_released_controller_on_the_low_resolution_checkpoints() -> None:
    checkpoints = [0, 16, 24, 28, 36, 40, 42, 44, 46, 48, 50]
    for seed in range(200):
        scores = curve(seed, 60)
        rates, _ = run(AutoLR(0.1, 60, checkpoints), scores)
        assert rates == reference(scores, checkpoints, 0.1, "code", "code"), f"curve {seed}"


def test_the_readings_differ() -> None:
    curves = [curve(seed, 60) for seed in range(100)]

    def rates(condition1: Condition1, condition2: Condition2) -> list[list[float]]:
        return [run(AutoLR(condition1=condition1, condition2=condition2), scores)[0] for scores in curves]

    readings = [rates(c1, c2) for c1 in get_args(Condition1) for c2 in get_args(Condition2)]
    assert all(a != b for i, a in enumerate(readings[:4]) for b in readings[:i])


def test_constant_scores_halve_at_every_checkpoint_until_training_stops() -> None:
    schedule = AutoLR()
    rates, restored = run(schedule, [0.5] * 60)
    assert restored == [5, 9, 13, 17, 21, 25, 29, 33, 37, 41]
    assert len(rates) == 41 and schedule.stopped
    assert schedule.lr == 9.765625e-06


def test_strictly_increasing_scores_never_halve() -> None:
    schedule = AutoLR()
    rates, restored = run(schedule, [epoch / 60 for epoch in range(60)])
    assert restored == [] and set(rates) == {0.01} and len(rates) == 60 and not schedule.stopped


@pytest.mark.parametrize(
    ("rest", "condition1", "halved"),
    [
        ([0.2, 0.3, 0.4, 0.4], "code", False),  # 3 of 4 rose: enough in the release
        ([0.2, 0.3, 0.4, 0.4], "apgd", True),  # not in AutoPGD
        ([0.2, 0.3, 0.3, 0.3], "code", True),  # ties are no rises
        ([0.2, 0.3, 0.4, 0.5], "literal", True),  # the printed inequality halves a rising curve
        ([0.09, 0.08, 0.07, 0.06], "literal", False),  # and leaves a falling one
    ],
)
def test_condition_1_at_the_first_checkpoint(rest: list[float], condition1: Condition1, halved: bool) -> None:
    _, restored = run(AutoLR(condition1=condition1), [0.1, *rest])
    assert restored == ([5] if halved else [])


def test_condition_2_needs_a_checkpoint_to_compare_with() -> None:
    _, restored = run(AutoLR(), [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert restored == [9]  # three of four and all of four rose, but 0.9 is still the best


def test_condition_2_of_apgd_waits_after_a_halving() -> None:
    scores = [0.9, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85]
    assert run(AutoLR(), scores)[1] == [5, 9, 13]
    assert run(AutoLR(condition2="apgd"), scores)[1] == [5, 13]


@pytest.mark.parametrize(
    ("epochs", "checkpoints", "expected"),
    [
        (60, 15, tuple(range(0, 60, 4))),
        (50, 15, tuple(range(0, 50, 4))),  # 50 // 15 is 3: the floor of 4
        (120, 15, tuple(range(0, 120, 8))),
        (3, 15, (0,)),
        (60, [0, 16, 24], (0, 16, 24)),
    ],
)
def test_checkpoints(epochs: int, checkpoints: int | list[int], expected: tuple[int, ...]) -> None:
    assert AutoLR(0.01, epochs, checkpoints).checkpoints == expected


@pytest.mark.parametrize("condition2", ["code", "apgd"])
def test_a_resumed_schedule_continues_as_if_nothing_had_happened(condition2: Condition2) -> None:
    for seed, at in [(seed, at) for seed in range(5) for at in range(60)]:
        scores = curve(seed, 60)
        first, second = AutoLR(condition2=condition2), AutoLR(condition2=condition2)
        head, _ = run(first, scores[:at])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        tail, _ = run(second, scores[at:]) if not first.stopped else ([], [])
        assert head + tail == run(AutoLR(condition2=condition2), scores)[0]


def test_state_dict_does_not_alias_the_schedule() -> None:
    schedule = AutoLR()
    state = schedule.state_dict()
    schedule.observe(0.5)
    assert state["scores"] == []


def torch_rates(scheduler: type[LRScheduler], epochs: int, lr: float, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    planned = scheduler(optimizer, **options)
    rates = []
    for _ in range(epochs):
        optimizer.step()
        planned.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_multistep_equals_torch() -> None:
    expected = torch_rates(MultiStepLR, 60, 0.01, milestones=[30, 50], gamma=0.1)
    assert run(MultiStep(0.01), [0.5] * 60)[0] == pytest.approx(expected)


def test_cosine_equals_torch() -> None:
    expected = torch_rates(CosineAnnealingLR, 20, 0.1, T_max=20, eta_min=1e-3)
    assert run(Cosine(0.1, 20, minimum=1e-3), [0.5] * 20)[0] == pytest.approx(expected)


def test_cosine_warms_up_and_stays_at_its_end() -> None:
    schedule = Cosine(0.1, 10, warmup=4)
    assert [schedule.rate(epoch) for epoch in range(5)] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert schedule.rate(7) == pytest.approx(0.05)
    assert schedule.rate(10) == schedule.rate(11) == 0


@pytest.mark.parametrize("schedule", [MultiStep(0.1), Cosine(0.1, 9), Constant(0.1)])
def test_planned_schedules_never_restore_or_stop_and_resume(schedule: Planned) -> None:
    assert run(schedule, [0.9, 0.1, 0.1])[1] == [] and not schedule.stopped
    other = Cosine(0.1, 9)
    other.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert other.epoch == 3


@pytest.mark.parametrize(("epochs", "milestones"), [(60, (30, 50)), (1, (1, 1)), (2, (1, 2)), (25, (13, 21))])
def test_multistep_by_name_scales_the_milestones(epochs: int, milestones: tuple[int, int]) -> None:
    schedule = build_schedule("multistep", 0.01, epochs)
    assert isinstance(schedule, MultiStep) and schedule.milestones == milestones
    assert schedule.lr == 0.01


def test_no_milestones_are_none_and_not_the_papers() -> None:
    assert run(build_schedule("multistep", 0.01, 60, {"milestones": []}), [0.5] * 60)[0] == [0.01] * 60


def test_options_reach_the_schedule() -> None:
    auto = build_schedule("auto", 0.1, 60, {"checkpoints": [0, 16, 24], "condition2": "apgd"})
    assert isinstance(auto, AutoLR) and auto.checkpoints == (0, 16, 24) and auto.condition2 == "apgd"
    assert build_schedule("multistep", 0.1, 60, {"milestones": [2], "gamma": 0.5}).lr == 0.1
    assert run(build_schedule("multistep", 0.1, 60, {"milestones": [2], "gamma": 0.5}), [0.5] * 2)[0] == [0.1, 0.05]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_at_the_rate_it_is_given(name: str) -> None:
    assert build_schedule(name, 0.03, 12).lr == 0.03


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: build_schedule("cosin", 0.1, 3), "did you mean 'cosine'"),
        (lambda: build_schedule("auto", 0.1, 3, {"checkpoint": 3}), "did you mean checkpoints"),
        (lambda: build_schedule("constant", 0.1, 3, {"gamma": 3}), "it has none"),
        (lambda: AutoLR(lr=0.0), "not a positive number"),
        (lambda: AutoLR(lr=float("nan")), "not a positive number"),
        (lambda: AutoLR(lr=1e-6), "below minimum=1e-05"),
        (lambda: AutoLR(rho=75), "not a share"),
        (lambda: AutoLR(condition1="paper"), "code, apgd, literal"),  # type: ignore[arg-type]
        (lambda: AutoLR(epochs=0), "at least one epoch"),
        (lambda: AutoLR(checkpoints=0), "at least one stage"),
        (lambda: AutoLR(checkpoints=[4, 8]), "increase from 0"),
        (lambda: AutoLR(checkpoints=[0, 8, 8]), "increase from 0"),
        (lambda: MultiStep(0.1, milestones=[50, 30]), "not increasing"),
        (lambda: Cosine(0.1, 5, warmup=5), "does not fit"),
    ],
)
def test_mistakes_are_explained(build: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
