"""Presets: the values of the RobustSSL protocol as its specification has them, and what may change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autolora import finetune
from autolora.errors import InputError
from autolora.experiments.config import RunConfig, config_from, read_yaml
from autolora.experiments.ingredients import build_method
from autolora.experiments.presets import preset_file, preset_names, preset_summary, with_preset
from autolora.methods import ALF, SLF, AutoLoRa, Method, VanillaRFT
from autolora.schedules import Schedule, build_schedule
from autolora.threat import ThreatModel

# the hyper-parameters of the protocol, by hand; what is not here is the default of every run
SGD = {"momentum": 0.9, "weight_decay": 0.0002, "head": "zero", "eps": "8/255", "norm": "Linf"}
LINEAR = {**SGD, "lr": 0.01, "batch_size": 512, "epochs": 25, "schedule": "multistep"}
FULL = {**SGD, "lr": 0.1, "batch_size": 128, "attack": "pgd-10"}
VISITS = [0, 16, 24, 28, 36, 40, 42, 44, 46, 48, 50]
PROTOCOL: dict[str, dict[str, Any]] = {
    "slf": {**LINEAR, "method": "slf", "schedule_options": {"milestones": [10, 20]}},
    "alf": {**LINEAR, "method": "alf", "schedule_options": {"milestones": [10, 20]}, "attack": "pgd-10"},
    "aff-trades": {
        **FULL,
        "method": "vanilla-rft",
        "method_options": {"beta": 6.0, "attack_loss": "kl", "start": "gaussian"},
        "epochs": 25,
        "schedule": "multistep",
        "schedule_options": {"milestones": [15, 20]},
    },
    "aff-autolora": {
        **FULL,
        "method": "autolora",
        "method_options": {"lambda2_max": 6.0, "start": "gaussian"},
        "epochs": 50,
        "schedule": "auto",
        "schedule_options": {"checkpoints": VISITS, "minimum": 0.0},
    },
}


def config_of(preset: str, **options: Any) -> RunConfig:
    return config_from({**with_preset(preset, options), "data": "photos/"})


def method_of(preset: str) -> Method:
    return build_method(config_of(preset), ThreatModel("8/255"))


def schedule_of(preset: str, **options: Any) -> Schedule:
    config = config_of(preset, **options)
    assert config.epochs is not None
    return build_schedule(config.schedule, config.lr, config.epochs, config.schedule_options)


def rates(schedule: Schedule, epochs: int) -> list[float]:
    """Return the rate of each epoch where robust accuracy never rises."""
    found = []
    for _ in range(epochs):
        assert not schedule.stopped
        found.append(schedule.lr)
        schedule.observe(0.25)
    return found


def test_there_are_these() -> None:
    assert preset_names() == sorted(PROTOCOL)


@pytest.mark.parametrize("name", PROTOCOL)
def test_values_are_those_of_the_protocol_and_nothing_else_changes(name: str) -> None:
    assert config_of(name) == RunConfig("photos/", **PROTOCOL[name])


def test_methods_and_their_attacks() -> None:
    for name, kind in (("slf", SLF), ("alf", ALF), ("aff-trades", VanillaRFT), ("aff-autolora", AutoLoRa)):
        method = method_of(name)
        assert type(method) is kind
        assert (method.pgd.steps, method.pgd.restarts) == (10, 1)
        assert method.pgd.step_size == pytest.approx(2 / 255)
        assert method.pgd.threat.radius == pytest.approx(8 / 255)
        assert method.pgd.start == ("gaussian" if name.startswith("aff") else "uniform")


def test_loss_weights() -> None:
    trades, ours = method_of("aff-trades"), method_of("aff-autolora")
    assert isinstance(trades, VanillaRFT)
    assert (trades.beta, trades.attack_loss) == (6.0, "kl")
    assert isinstance(ours, AutoLoRa)
    assert (ours.rank, ours.alpha, ours.lambda2_max, ours.sigma, ours.lora_alpha) == (8, 1.0, 6.0, 1.0, 1.0)
    assert (ours.style, ours.targets, ours.statistics, ours.measured_on) == (
        "loralib",
        "blocks",
        "shared",
        "augmented",
    )


@pytest.mark.parametrize(("name", "lr", "ends"), [("slf", 0.01, 10), ("alf", 0.01, 10), ("aff-trades", 0.1, 15)])
def test_planned_rates(name: str, lr: float, ends: int) -> None:
    expected = [lr] * ends + [lr / 10] * (20 - ends) + [lr / 100] * 5
    assert rates(schedule_of(name), 25) == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "halvings"), [(50, 9), (100, 10)])
def test_automatic_rates(epochs: int, halvings: int) -> None:
    """After epoch c + 1 for every visit c > 0; the last, at 50, is out of reach in 50 epochs."""
    expected = [0.1 / 2 ** sum(epoch > visit for visit in VISITS[1:]) for epoch in range(epochs)]
    found = rates(schedule_of("aff-autolora", epochs=epochs), epochs)
    assert found == pytest.approx(expected)
    assert found[-1] == pytest.approx(0.1 / 2**halvings)


def test_no_rate_is_too_small_to_go_on() -> None:
    """The release for 32x32 has no stop; the paper's schedule would stop below 1e-5."""
    schedule = schedule_of("aff-autolora", lr=2e-5)
    assert rates(schedule, 50)[-1] < 1e-6


def test_header_says_what_and_where_from() -> None:
    for name in preset_names():
        text = preset_file(name).read_text()
        assert text.startswith("# ")
        assert "\n# Source: " in text
        summary = preset_summary(name)
        assert "RobustSSL protocol" in summary
        assert summary.count(".") == 1
        assert summary.endswith(".")
        assert summary[:-1] in text.splitlines()[0]


# what may change a preset


def test_options_win() -> None:
    config = config_of("slf", lr=0.05, epochs=5, head="default")
    assert (config.lr, config.epochs, config.head) == (0.05, 5, "default")
    assert config.batch_size == 512


def test_entries_of_a_mapping_win_one_by_one() -> None:
    config = config_of("aff-trades", method_options={"beta": 3.0})
    assert config.method_options == {"beta": 3.0, "attack_loss": "kl", "start": "gaussian"}
    assert config_of("aff-trades").method_options == PROTOCOL["aff-trades"]["method_options"]
    assert config_of("slf", method_options={"mine": 1}).method_options == {"mine": 1}


def test_none_empties_a_mapping() -> None:
    config = config_of("aff-trades", method="at", method_options=None)
    assert config.method_options is None
    assert build_method(config, ThreatModel("8/255")).pgd.start == "uniform"


def test_a_method_that_lacks_the_options_of_the_preset_is_refused() -> None:
    with pytest.raises(InputError, match="method at has no option 'beta'"):
        build_method(config_of("aff-trades", method="at"), ThreatModel("8/255"))


@pytest.mark.parametrize(
    ("given", "end"), [("slff", "; did you mean slf?"), ("../presets", "; there are aff-autolora, ")]
)
def test_an_unknown_name(given: str, end: str) -> None:
    with pytest.raises(InputError) as caught:
        preset_file(given)
    assert str(caught.value).startswith(f"preset {given!r} is unknown{end}")
    with pytest.raises(InputError, match="is unknown"):
        finetune("photos/", preset=given)


@pytest.mark.parametrize("name", ["alf", "aff-autolora"])
def test_a_run(name: str, photos: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "device": "cpu"}
    small |= {"epochs": 1, "batch_size": 10, "attack": "pgd-1", "precision": "fp32"}
    result = finetune(photos, preset=name, out=tmp_path / "run", progress=False, **small)
    expected = {**PROTOCOL[name], **small, "out": str(tmp_path / "run")}
    assert read_yaml(result.folder / "config.yaml") == RunConfig(str(photos), **expected)
