"""From measured costs to a forecast: arithmetic that can be done by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autolora.errors import InputError
from autolora.experiments.config import RunConfig
from autolora.experiments.planning.advice import advice, dominant
from autolora.experiments.planning.attack_passes import Passes
from autolora.experiments.planning.attacking import AttackCosts, PartCost
from autolora.experiments.planning.checking import Record, check
from autolora.experiments.planning.forecast import Forecast, Sizes
from autolora.experiments.planning.measuring import Cost
from autolora.experiments.planning.rehearsal import Costs, Measuring
from autolora.experiments.planning.words import duration, parse_duration

COSTS = Costs(
    step=Cost(0.01, 300.0),
    attack=Cost(0.008, 250.0),
    compiling=0.0,
    measuring=(Measuring(2.0, 640, 200.0), Measuring(1.0, 320, 200.0)),
    validation=Cost(0.02, 400.0),
    checkpoint=Cost(0.5, 210.0),
    similarity=7.0,
    test=Cost(0.03, 350.0),
)
PARTS = {
    "natural": PartCost(Passes(2, 0), 0.1),
    "apgd-ce": PartCost(Passes(103, 101), 0.9),
    "apgd-t": PartCost(Passes(911, 909), 9.0),
    "fab-t": PartCost(Passes(1801, 900), 14.0),
    "square": PartCost(Passes(5000, 0), 16.0),
}
FORECAST = Forecast(
    config=RunConfig(data="photos", epochs=4),
    network="resnet20_cifar",
    environment={"device": "cpu (x86_64)", "threads": 1, "precision": "bf16"},
    sizes=Sizes(epochs=4, steps=10, batch=64, train=650, val=50, test=100, attack_steps=10),
    costs=COSTS,
    attacks=AttackCosts(PARTS, 500.0),
    preparing=3.0,
    largest_batch=128,
    budget=400.0,
)


def test_every_part_is_its_count_times_its_cost_and_the_parts_are_the_whole() -> None:
    seconds = {item.name: item.seconds for item in FORECAST.items()}
    assert seconds == pytest.approx(
        {
            "preparing": 3.0,
            "training": 4 * 10 * 64 * 0.01,
            "measuring": 2.0 + 3 * 1.0,
            "validation": 4 * 50 * 0.02,
            "checkpoints": 4 * 0.5,
            "test": 100 * 0.03,
        }
    )
    assert FORECAST.seconds() == pytest.approx(sum(seconds.values()))
    counts = {item.name: item.count for item in FORECAST.items()}
    assert counts == {
        "preparing": 1, "training": 40, "measuring": 640 + 3 * 320, "validation": 200, "checkpoints": 4, "test": 100
    }  # fmt: skip


def test_an_epoch_is_training_measuring_and_validation_and_a_shorter_run_is_cheaper() -> None:
    assert FORECAST.epoch_seconds() == pytest.approx((25.6 + 5.0 + 4.0) / 4)
    assert FORECAST.epoch_seconds(1) == pytest.approx(6.4 + 2.0 + 1.0)
    assert FORECAST.seconds(1) == pytest.approx(3.0 + 6.4 + 2.0 + 1.0 + 0.5 + 3.0)


def test_checkpoints_within_long_epochs_and_gradient_similarity_are_counted() -> None:
    config = replace(FORECAST.config, checkpoint_minutes=0.1, gradient_similarity=2)
    items = {item.name: item for item in replace(FORECAST, config=config).items()}
    assert items["checkpoints"].count == 4 + 4  # 25.6 s of training, every 6 s
    assert items["gradient-similarity"].seconds == 2 * 7.0
    never = replace(FORECAST, config=replace(FORECAST.config, checkpoint_minutes=0.0))
    assert {item.name: item.count for item in never.items()}["checkpoints"] == 4


def test_compiling_is_a_part_where_something_is_compiled() -> None:
    compiled = replace(FORECAST, costs=replace(COSTS, compiling=20.0))
    assert compiled.seconds() == pytest.approx(FORECAST.seconds() + 20.0)
    assert compiled.epoch_seconds() == FORECAST.epoch_seconds()
    assert [item.name for item in compiled.items()][:3] == ["preparing", "compiling", "training"]


def test_the_fast_version_is_the_first_two_attacks() -> None:
    assert FORECAST.version("standard").each == pytest.approx(40.0)
    assert FORECAST.version("fast").each == pytest.approx(10.0)
    assert list(FORECAST.version("fast").parts) == ["natural", "apgd-ce", "apgd-t"]


def test_a_budget_buys_images_and_their_interval() -> None:
    standard, fast = FORECAST.subset("standard"), FORECAST.subset("fast")
    assert standard.images == 10 and standard.seconds == pytest.approx(400.0)
    # Wilson (1927) at 5 of 10 by hand: z sqrt(n p q + z^2 / 4) / (n + z^2)
    z = 1.959964
    assert standard.uncertainty == pytest.approx(z * (10 / 4 + z**2 / 4) ** 0.5 / (10 + z**2), abs=1e-6)
    assert fast.images == 40
    assert replace(FORECAST, budget=1e6).subset("standard").images == 100  # there are no more
    nothing = replace(FORECAST, budget=39.0).subset("standard")
    assert (nothing.images, nothing.uncertainty) == (0, None)


def test_the_plain_values_add_up_and_are_json() -> None:
    content = json.loads(json.dumps(FORECAST.as_json(), allow_nan=False))
    assert set(content) == {
        *("data", "method", "network", "environment", "images", "fit", "autoattack", "largest_batch", "subset")
    }
    fit = content["fit"]
    assert fit["seconds"] == pytest.approx(sum(part["seconds"] for part in fit["parts"].values()))
    assert sum(part["share"] for part in fit["parts"].values()) == pytest.approx(1)
    assert fit["peak_mib"] == 400.0 and fit["step_seconds"] == pytest.approx(0.64)
    assert fit["attack_share"] == pytest.approx(0.8)
    for version, seconds in (("standard", 4000.0), ("fast", 1000.0)):
        found = content["autoattack"][version]
        assert found["seconds"] == pytest.approx(seconds)
        assert sum(part["seconds"] for part in found["parts"].values()) == pytest.approx(seconds)
    assert content["autoattack"]["standard"]["parts"]["fab-t"] == {
        "forwards": 1801, "backwards": 900, "seconds": pytest.approx(1400.0)
    }  # fmt: skip
    assert content["subset"]["standard"]["images"] == 10


def test_what_is_advised_saves_what_it_says() -> None:
    found = {one.option: one.effect for one in advice(FORECAST)}
    whole = FORECAST.seconds()
    assert dominant(FORECAST) == "training"
    assert found["--attack one-step"].startswith("one attack step in place of 10: about")
    assert duration(whole - 25.6 * 0.8 * 0.9) in found["--attack one-step"]
    assert duration(whole - 0.75 * (25.6 + 5.0)) in found["--label-fraction 0.25"]
    assert "--limit 10" in found and "--fast" in found
    assert "--accumulate 2" not in found and "--val-fraction" not in found


def test_nothing_is_advised_that_would_not_help() -> None:
    one_step = replace(FORECAST, sizes=replace(FORECAST.sizes, attack_steps=1))
    assert "--attack one-step" not in {one.option for one in advice(one_step)}
    unattacked = replace(FORECAST, costs=replace(COSTS, attack=Cost(1e-6, 1.0)))
    assert "--attack one-step" not in {one.option for one in advice(unattacked)}
    enough = replace(FORECAST, budget=1e6)
    assert not any(one.option.startswith("--limit") for one in advice(enough))
    too_large = replace(FORECAST, largest_batch=32)
    assert "--accumulate 2" in {one.option for one in advice(too_large)}


def test_a_run_of_fewer_epochs_on_another_machine_is_compared_and_the_machine_named() -> None:
    environment = {"device": "cpu (x86_64)", "threads": 96, "precision": "bf16"}
    record = Record(Path("runs/a"), epochs=1, seconds=14.9, epoch_seconds=18.8, environment=environment)
    found = check(FORECAST, record)
    assert found.seconds == pytest.approx(14.9 + 1.0) and found.error == pytest.approx(1.0 / 14.9)
    assert found.epoch_seconds == pytest.approx(9.4) and found.epoch_error == pytest.approx(-0.5)
    assert found.differences == ("the number of threads (96 then, 1 now)",)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "40 ms"), (0.9996, "1.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.7, "1 min"), (200, "3 min 20 s"),
     (3600, "1 h"), (18720, "5 h 12 min"), (187200, "2 d 4 h")],
)  # fmt: skip
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations_are_read_as_people_type_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1 h", "1w", "0s", "1h30", "1.h", "nan"])
def test_what_is_no_duration_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"budget=.*such as 30m") as error:
        parse_duration(text)
    assert "\n" not in str(error.value)
