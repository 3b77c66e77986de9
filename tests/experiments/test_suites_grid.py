"""From suites to runs: which runs are the same, what they cost, and what each protocol changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import DefaultHelpFormatter
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.attacks.autoattack.ensemble import AutoAttack
from autolora.attacks.autoattack.square import Square
from autolora.attacks.victim import Victim
from autolora.cli.fit import parser
from autolora.cli.options import to_config
from autolora.data import NAMED_SETS
from autolora.errors import InputError
from autolora.experiments.config import RunConfig
from autolora.experiments.suites.commands import fit_command
from autolora.experiments.suites.cost import Cost, cost_of, images, passes_of, passes_of_step
from autolora.experiments.suites.grid import Job, Plan, plan
from autolora.experiments.suites.identity import canonical, identity
from autolora.experiments.suites.places import Places, read_places
from autolora.experiments.suites.protocols import HABITS, Protocol, protocol
from autolora.experiments.suites.reading import read_suite, suite_ids
from autolora.experiments.suites.store import Store
from autolora.methods import METHODS, Batch, Method
from autolora.models import RobustModel
from autolora.models.counting import build_on_meta
from autolora.models.robust import Architecture, Normalize
from autolora.models.targets import adapted_layers
from autolora.threat import ThreatModel


def names(suite: str, scale: str = "paper", seeds: Iterable[int] = (0,), **at: Any) -> set[str]:
    """Return the runs of a suite, of the cells at some levels."""
    cells = plan(read_suite(suite), scale, seeds=list(seeds)).cells
    return {job.name for cell in cells if all(cell.at[axis] == at[axis] for axis in at) for job in cell.jobs}


def all_names(paper: str) -> set[str]:
    return set().union(*(names(name) for name in suite_ids() if name.startswith(paper)))


# which runs are the same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"method": "autolora", "rank": 8}, {"method": "autolora"}),
        ({"method": "autolora", "rank": 4}, {"method": "autolora", "method_options": {"rank": 4}}),
        ({"method_options": {"alpha": 2}}, {"method_options": {"alpha": 2.0}}),
        ({"method_options": {"alpha": 1.0}}, {}),
        ({"eps": "8/255"}, {"eps": "0.031372549019607843"}),
        ({"schedule": "auto", "schedule_options": {"rho": 0.75}}, {}),
        ({"out": "a", "workers": 4, "device": "cpu", "compile": "attack"}, {"out": "b"}),
        ({"label_fraction": 1.0}, {}),
        ({"lr": 0.01}, {}),
    ],
)
def test_the_same_run_said_otherwise(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert identity({"data": "d", **one}) == identity({"data": "d", **other})


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 6},
        {"data": "e"},
        {"method": "at"},
        {"rank": 4},
        {"method_options": {"alpha": 2.0}},
        {"schedule": "multistep"},
        {"schedule_options": {"rho": 0.5}},
        {"eps": "0.0314"},
        {"epochs": 30},
        {"label_fraction": 0.1},
        {"weights": "none"},
    ],
)
def test_another_run(changed: dict[str, Any]) -> None:
    assert identity({"data": "d", **changed}) != identity({"data": "d"})


def test_the_name_of_a_run_stays() -> None:
    """Runs are found again by it: if this changes, everybody's finished runs are lost to their suites."""
    assert identity({"data": "d", "method": "autolora", "rank": 4, "seed": 6, "eps": "4/255"}) == "b4a4d8a5cc63"


def test_an_option_that_is_new_does_not_change_old_names() -> None:
    """What is at its default is no part of it, so a version with more options finds the runs of this one."""
    assert canonical({"data": "d"}) == {"data": "d"}
    assert canonical({"data": "d", "seed": 6, "rank": 4}) == {"data": "d", "seed": 6, "method_options": {"rank": 4}}


def test_counts_of_runs_are_the_specifications() -> None:
    """A seed of everything behind AutoLoRa: 18 + 18 + 8 + 12 + 7 + 24 + 4 + 12 new runs; LoFT 22, and 6 baselines."""
    assert len(names("autolora.T1", seeds=(0, 6, 66))) == len(names("autolora.T2", seeds=(0, 6, 66))) == 54
    assert len(all_names("autolora")) == 18 + 18 + 8 + 12 + 7 + 24 + 4 + 12
    assert len(all_names("loft")) == 22 + 6


def test_suites_share_runs() -> None:
    first = names("autolora.T1")
    assert names("autolora.T4", rank=8) <= first and not names("autolora.T4", rank=4) & first
    assert names("autolora.T8", eps_pt=4) <= first and not names("autolora.T8", eps_pt=8) & first
    assert names("autolora.T10", alpha=1.0) <= first and not names("autolora.T10", alpha=2.0) & first
    assert names("autolora.T9", method="twins-trades") <= first
    assert names("autolora.T6", method="vanilla-rft", lr=0.001) <= first  # its rate in Table 5
    assert not names("autolora.T6", method="vanilla-rft", lr=0.01) & first
    assert names("autolora.T7") == first | names("autolora.T2")
    assert names("autolora.F1") | names("autolora.F2") | names("autolora.F3") <= first
    assert names("loft.F6", rank=8) | names("loft.F5", fraction=1.0) == names("loft.T2", method="loft")
    assert names("loft.T3") == names("loft.F4") == names("loft.T1", method="loft")


def test_small_suites_share_backbones_between_the_papers() -> None:
    """Backbones are; runs are not, since LoFT's start at ten times the rate, as a setting of the scale says."""
    natural = plan(read_suite("loft.T2"), "small").backbones
    assert {job.name for job in natural} < {job.name for job in plan(read_suite("autolora.T8"), "small").backbones}
    assert names("loft.T2", "small").isdisjoint(names("autolora.T8", "small"))
    assert names("autolora.T1", "small") == names("autolora.F1", "small") == names("autolora.T8", "small", eps_pt=4)


def test_a_backbone_is_part_of_what_a_run_is() -> None:
    assert names("autolora.T8", "small", eps_pt=1).isdisjoint(names("autolora.T8", "small", eps_pt=2))
    bases = {job.name for job in plan(read_suite("autolora.T8"), "small").backbones}
    assert len(bases) == 5
    assert bases > {job.name for job in plan(read_suite("autolora.T1"), "small").backbones}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_every_run_is_a_command_that_fit_understands(scale: str) -> None:
    """What the command line makes of a run's words is the configuration that the run is known by."""
    command_line = parser(DefaultHelpFormatter)
    store = Store()
    jobs: dict[str, Job] = {}
    for suite in map(read_suite, suite_ids()):
        for chosen in (Protocol(), Protocol(tuple(HABITS))):
            item = plan(suite, scale, chosen, [6])
            jobs |= {job.name: job for job in (*item.jobs, *item.backbones)}
    places = Places({}, {})
    assert len(jobs) > 100
    for job in jobs.values():
        verb, *words = fit_command(job, store, places)
        config = to_config(command_line.parse_args(words))
        assert verb == "fit" and job.is_run_of(vars(config))
        assert config.out == str(store.path(job))


def test_a_run_of_another_configuration_is_not_taken_for_it() -> None:
    job = plan(read_suite("autolora.T4"), "paper").cells[0].jobs[0]
    assert job.is_run_of({**job.options, "data": "elsewhere.zip", "out": "x"})
    assert not job.is_run_of({**job.options, "rank": 16})
    small = plan(read_suite("autolora.T1"), "small").cells[0].jobs[0]
    assert small.is_run_of({**small.options, "model": "runs/backbone", "image_size": 32, "batch_size": 64})


def test_levels_that_a_scale_does_not_run() -> None:
    item = plan(read_suite("autolora.T3"), "small")
    assert item.left_out == {"model": ("vit_small_patch16", "vit_base_patch16", "deit_small")}
    assert item.cells[0].labels["model"] == "DeiT-Ti at 32 pixels"
    assert plan(read_suite("autolora.T3"), "paper").left_out == {}


# protocols


def options(suite: str, chosen: Protocol, scale: str = "paper", **at: Any) -> dict[str, Any]:
    (cell,) = [
        cell
        for cell in plan(read_suite(suite), scale, chosen, [0]).cells
        if all(cell.at[axis] == level for axis, level in at.items())
    ]
    return dict(cell.jobs[0].options)


@pytest.mark.parametrize("name", suite_ids())
@pytest.mark.parametrize("scale", ["paper", "small"])
def test_every_branch_of_the_released_protocol_has_layers_to_act_in(name: str, scale: str) -> None:
    """A transformer has no convolution in its blocks, where the idle branch of the release would be."""
    suite = read_suite(name)
    if not suite.released:
        return
    item = plan(suite, scale, protocol=protocol("released", released=suite.released))
    for job in item.jobs:
        targets = (job.options.get("method_options") or {}).get("targets")
        source = job.options if job.backbone is None else job.backbone.options
        if targets is not None and "model" in source:
            assert adapted_layers(build_on_meta(source["model"], classes=2).backbone, targets)


def test_released_protocol() -> None:
    """Section 9: 0.0314 and 0.00784, the last block of each stage, 95 % for AutoLoRa and all for the baselines."""
    chosen = protocol("released", released=read_suite("autolora.T1").released)
    ours = options("autolora.T1", chosen, data="DTD", method="autolora")
    assert (ours["eps"], ours["step_size"]) == (0.0314, 0.00784)
    assert ours["method_options"] == {"targets": "last-block"}
    assert ours["label_fraction"] == pytest.approx(0.95) and "val_fraction" not in ours
    theirs = options("autolora.T1", chosen, data="CUB", method="twins-trades")
    assert theirs["label_fraction"] == 1 and theirs["method_options"] == {"weight_frozen": 3.0}
    assert options("autolora.T1", chosen, data="Caltech256", method="autolora")["data"] == "caltech256-released"


def test_selecting_on_test_alone_trains_on_as_many_images() -> None:
    chosen = protocol(habits=["select-on-test"])
    for method in ("autolora", "vanilla-rft"):
        (cell,) = [c for c in plan(read_suite("autolora.T1"), "small", chosen).cells if c.at["method"] == method]
        sound = plan(read_suite("autolora.T1"), "small").cells[0].jobs[0]
        place = plan(read_suite("autolora.T1"), "small").settings.places["photos"]
        assert cell.jobs[0].selects_on_test
        assert images(cell.jobs[0], place)[0] == images(sound, place)[0] == 2438
        assert images(cell.jobs[0], place)[1:] == (2500, 2500, 5)
        assert images(sound, place)[1:] == (625, 2500, 5)


@pytest.mark.parametrize("left_open", [{}, {"val_fraction": None}])
@pytest.mark.parametrize("habit", ["select-on-test", "baselines-on-all"])
def test_as_many_images_as_cannot_be_told_are_refused(habit: str, left_open: dict[str, Any]) -> None:
    """`fit` holds out 5 to 20 % then, by how many images there are: training on all of them would not be as many."""
    with pytest.raises(InputError, match="val_fraction is left open; set it in the options") as error:
        protocol(habits=[habit]).apply({"data": "photos", "method": "autolora", **left_open})
    assert "\n" not in str(error.value)
    assert protocol(habits=["rounded-eps"]).apply({"data": "photos", **left_open})["eps"] == 0.0314


def test_the_suite_of_the_documentation_can_be_had_with_every_habit(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    path = tmp_path / "rates.yaml"
    path.write_text(page.split("```yaml\n")[1].split("```")[0])
    for chosen, share in ((Protocol(), None), (protocol(habits=["select-on-test"]), 0.9), (Protocol(tuple(HABITS)), 1)):
        (cell, *_) = plan(read_suite(str(path)), "small", chosen).cells
        assert cell.at["method"] == "at" and cell.jobs[0].options.get("label_fraction") == share


@pytest.mark.parametrize("habit", HABITS)
def test_each_habit_makes_other_runs(habit: str) -> None:
    suite = read_suite("autolora.T1")
    sound, changed = plan(suite, "paper", seeds=[0]), plan(suite, "paper", protocol(habits=[habit]), [0])
    different = {job.name for job in changed.jobs} - {job.name for job in sound.jobs}
    assert len(different) == {"idle-branch": 6, "caltech-split": 3}.get(habit, 18)
    assert [job.name for job in changed.backbones] == [job.name for job in sound.backbones]


def test_every_habit_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in HABITS] == list(HABITS)


def test_baselines_on_all_images_have_no_validation_of_their_own() -> None:
    assert protocol(habits=["baselines-on-all"]).habits == ("select-on-test", "baselines-on-all")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "sund"}, "protocol 'sund' is unknown"),
        ({"habits": ["idle"]}, "habit 'idle' is unknown; did you mean idle-branch?"),
        ({"name": "released", "habits": ["idle-branch"], "released": ["idle-branch"]}, "give either it or --habit"),
        ({"name": "released"}, "no released code"),
        ({"habits": ["idle-branch"], "released": read_suite("autolora.T3").released}, "none of the code behind this"),
    ],
)
def test_protocols_that_cannot_be(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        protocol(**arguments)


# places


def settings_of(suite: str, scale: str) -> Any:
    return plan(read_suite(suite), scale).settings


def test_one_place_needs_no_name() -> None:
    assert read_places([settings_of("autolora.T1", "small")], ["a=b.zip"]).path("photos") == "a=b.zip"
    both = [settings_of(name, "paper") for name in ("autolora.T1", "loft.T1")]
    given = read_places(both, ["cifar10=x.zip"], ["byol-cifar10=w.ckpt"])
    assert [given.path(name) for name in ("cifar10", "cifar100", "byol-cifar10")] == ["x.zip", "cifar100", "w.ckpt"]


@pytest.mark.parametrize(
    ("data", "said"), [("x.zip", "give NAME=PATH; there are cifar10"), ("cifar=x.zip", "did you mean cifar10?")]
)
def test_a_path_that_does_not_say_what_for(data: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        read_places([settings_of("autolora.T1", "paper")], [data])


def test_what_has_to_be_provided() -> None:
    with pytest.raises(InputError, match="--weights byol-cifar10=PATH"):
        read_places([settings_of("loft.T1", "paper")]).path("byol-cifar10")


# cost


class Counting(nn.Module):
    """A small backbone, with a norm to freeze and a convolution to adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
        self.pretrained_cfg = {"first_conv": "conv1", "classifier": "fc"}
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        out = self.layer1(self.bn1(self.conv1(x)).relu()).mean(dim=(2, 3))
        if out.requires_grad:
            out.register_hook(self._backward)
        return out

    def _backward(self, gradient: Tensor) -> None:
        self.passes += len(gradient)


@pytest.mark.parametrize("name", METHODS)
def test_passes_of_a_step_are_those_that_the_method_makes(name: str) -> None:
    backbone = Counting()
    architecture = Architecture("none", "fc", (3, 8, 8))
    model = RobustModel(Normalize((0.5,) * 3, (0.5,) * 3), backbone, nn.Linear(4, 3), architecture)
    method = METHODS[name](PGD(ThreatModel("8/255"), steps=3))
    method.prepare(model)
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    backbone.passes = 0
    x_adv = method.attack(model, x, y)
    torch.stack(list(method.loss(model, Batch(x, y, x_adv)).values())).sum().backward()  # type: ignore[no-untyped-call]
    said = passes_of_step({"method": name, "attack": "pgd-3"})
    assert said is not None and backbone.passes == 4 * (said - METHODS[name].passes_before_epoch)


def test_autoattack_costs_at_most_what_is_said() -> None:
    """On a model that nothing fells, which is then the most: three classes, so two targets."""
    passes = 0

    def forward(x: Tensor) -> Tensor:
        nonlocal passes
        passes += len(x)
        logits = torch.tensor([9.0, 1.0, 0.0]) + 1e-6 * x.sum(dim=(1, 2, 3))[:, None] * torch.tensor([0.0, 1.0, 2.0])
        if logits.requires_grad:
            logits.register_hook(count)  # type: ignore[no-untyped-call]
        return logits

    def count(gradient: Tensor) -> None:
        nonlocal passes
        passes += len(gradient)

    x, y, threat = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0]), ThreatModel("8/255")
    fast, standard = passes_of("autoattack-fast", 3), passes_of("autoattack", 3)
    AutoAttack(threat, "fast")(forward, x, y)
    assert 0.95 * fast <= passes <= 1.05 * fast
    parts = AutoAttack(threat).parts()
    square = parts["square"]
    assert isinstance(square, Square)
    passes = 0
    parts["fab-t"](Victim(forward), x, y)
    assert standard - fast - square.queries == pytest.approx(passes, rel=0.05)


def known_cost(*arguments: Any) -> Cost:
    cost = cost_of(*arguments)
    assert cost is not None
    return cost


def test_cost_of_data_of_ones_own() -> None:
    """A folder does not say how many images it holds before it is read; a named set does, and 60 epochs are usual."""
    settings = plan(read_suite("autolora.T1"), "small").settings
    options = {"method": "at", "val_fraction": 0.05}
    assert cost_of([Job({**options, "data": "photos/"}, title="x")], settings) is None
    cost = known_cost([Job({**options, "data": "digits"}, title="x")], settings)
    assert cost.testing == 359 * 22
    assert cost.training == 30 * (1366 * (20 + 2) + 72 * 22)


class Unknown(Method):
    """A method of a user's own, which does not say how many passes it takes."""

    def loss(self, model: RobustModel, batch: Batch) -> dict[str, Tensor]:
        """Return nothing; it is never called."""
        return {}


def test_cost_of_a_method_that_does_not_say_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "unknown", Unknown)
    settings = plan(read_suite("autolora.T1"), "small").settings
    known, unknown = (Job({"method": name, "data": "digits"}, title="x") for name in ("at", "unknown"))
    assert passes_of_step(unknown.options) is None
    assert cost_of([known, unknown], settings) is None and cost_of([known], settings) is not None


def test_cost_of_a_method_that_says_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven passes for the loss and two before an epoch, with three steps of an attack or without one."""
    told = type("Told", (Unknown,), {"passes_of_loss": 7, "passes_before_epoch": 2})
    monkeypatch.setitem(METHODS, "told", told)
    monkeypatch.setitem(METHODS, "natural", type("Natural", (told,), {"natural_only": True}))
    assert passes_of_step({"method": "told", "attack": "pgd-3"}) == 7 + 2 + 2 * 3
    assert passes_of_step({"method": "natural", "attack": "pgd-3"}) == 7 + 2


def test_cost_of_a_run_by_hand() -> None:
    """2,438 training, 625 validation and 2,500 test images; AutoLoRa: ten steps, two paths, and the measured branch."""
    item = plan(read_suite("autolora.T1"), "small")
    (job,) = [cell.jobs[0] for cell in item.cells if cell.at["method"] == "autolora"]
    cost = known_cost([job], item.settings, ["autoattack"])
    assert cost.training == 16 * (2438 * (20 + 4 + 1) + 625 * 22) + 8 * 256 * 32
    assert cost.testing == 2500 * 22
    assert cost.autoattack == 500 * passes_of("autoattack", 5)  # a sample, as the settings say
    assert known_cost([job], replace(item.settings, evaluation={}), ["autoattack"]).autoattack == 5 * cost.autoattack
    assert known_cost([job, job], item.settings).training == 2 * cost.training


def test_named_sets_know_how_many_images_they_have() -> None:
    item: Plan = plan(read_suite("autolora.T1"), "paper")
    for cell in item.cells:
        name = str(cell.jobs[0].options["data"])
        train, val, test, classes = images(cell.jobs[0], item.settings.places[name])
        assert (train + val, test, classes) == (NAMED_SETS[name].train, NAMED_SETS[name].test, NAMED_SETS[name].classes)
        assert val == pytest.approx(0.05 * (train + val), abs=1)


def test_a_configuration_has_what_places_need() -> None:
    """The options that name places are options of a run."""
    assert {"data", "weights", "model"} <= {item for item in RunConfig.__dataclass_fields__}
