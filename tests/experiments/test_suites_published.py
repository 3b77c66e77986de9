"""The published numbers in the package against the specification, read independently; and what is derived from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autolora.errors import InputError
from autolora.experiments.suites.claims import published
from autolora.experiments.suites.definitions import Suite
from autolora.experiments.suites.grid import plan
from autolora.experiments.suites.reading import FOLDER, read_suite, suite_ids
from autolora.experiments.suites.store import Store
from autolora.experiments.suites.table import build_table

Number = tuple[str, tuple[tuple[str, str], ...], str, float]  # suite, levels, metric, value
IDS = [*(f"autolora.T{n}" for n in range(1, 11)), *(f"autolora.F{n}" for n in (1, 2, 3))]
IDS += [*(f"loft.T{n}" for n in range(1, 5)), *(f"loft.F{n}" for n in (4, 5, 6))]
METRICS = {"SA": "natural", "PGD10": "pgd-10", "AA": "autoattack"}
METHODS = {
    "vanilla_rft": "vanilla-rft",
    "twins_trades": "twins-trades",
    "twins": "twins-trades",
    "autolora_no_auto_lr": "autolora-multistep",
    "rft_at": "at",
}


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    path = Path(__file__).resolve().parents[3] / "shared" / "spec" / "methods.md"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    block = re.search(r"```json tables\n(.*?)\n```", path.read_text(encoding="utf-8"), re.S)
    assert block is not None
    return {item["id"]: item for item in json.loads(block[1])}


def number(suite: str, metric: str, value: float, **levels: Any) -> Number:
    named = {axis: METHODS.get(level, level) for axis, level in levels.items()}
    return suite, tuple(sorted((axis, str(level)) for axis, level in named.items())), metric, value


def benchmark(name: str, item: Any) -> Iterator[Number]:
    for data, metrics in item["values"].items():
        for metric, values in metrics.items():
            for method, value in zip(item["value_order"], values, strict=True):
                yield number(name, METRICS[metric], value, data=data, method=method)


def backbones(name: str, item: Any) -> Iterator[Number]:
    for model, methods in item["values"].items():
        for method, values in methods.items():
            for metric, value in zip(item["value_order"], values, strict=True):
                yield number(name, METRICS[metric], value, model=model, method=method)


def ranks(name: str, item: Any) -> Iterator[Number]:
    for rank, row in item["values"].items():
        for data in item["datasets"]:
            yield number(name, "table4_percent", row["param_ratio_percent"], rank=rank, data=data)
            for metric, value in zip(item["value_order"], row[data], strict=True):
                yield number(name, METRICS[metric], value, rank=rank, data=data)


def hyper_parameters(name: str, item: Any) -> Iterator[Number]:
    for method, row in item["values"].items():
        for data, values in row.items():
            for metric, value in zip(("lr", "weight_decay", "gamma"), values, strict=False):
                yield number(name, metric, value, method=method, data=data)


def sensitivity(name: str, item: Any) -> Iterator[Number]:
    for method, row in item["values"].items():
        for lr, values in row.items():
            for metric, value in zip(item["value_order"], values, strict=True):
                yield number(name, METRICS[metric], value, method=method, lr=lr)


def p_values(name: str, item: Any) -> Iterator[Number]:
    against = {"vs_vanilla": "vanilla_rft", "vs_twins": "twins"}
    for model, row in item["values"].items():
        for data, comparisons in row.items():
            for other, values in comparisons.items():
                for metric, value in zip(item["value_order"], values, strict=True):
                    yield number(name, METRICS[metric], value, model=model, data=data, method=against[other])


def radii(name: str, item: Any) -> Iterator[Number]:
    for data, metrics in item["values"].items():
        for metric, methods in metrics.items():
            for method, values in methods.items():
                for eps, value in zip(item["column_order"], values, strict=True):
                    yield number(name, METRICS[metric], value, data=data, method=method, eps_pt=eps)


def automatic(name: str, item: Any) -> Iterator[Number]:
    for data, metrics in item["values"].items():
        for metric, values in metrics.items():
            for method, value in zip(("twins-trades", "twins-trades-auto"), values, strict=True):
                yield number(name, METRICS[metric], value, data=data, method=method)


def exponents(name: str, item: Any) -> Iterator[Number]:
    for alpha, row in item["values"].items():
        for data, values in row.items():
            for metric, value in zip(item["value_order"], values, strict=True):
                yield number(name, METRICS[metric], value, alpha=alpha, data=data)


def four_ways(name: str, item: Any) -> Iterator[Number]:
    for method, values in item["values"].items():
        for metric, value in zip(item["value_order"], values, strict=True):
            yield number(name, METRICS[metric], value, method=method)


def two_sets(name: str, item: Any) -> Iterator[Number]:
    places = [
        ("natural", "CIFAR-10"),
        ("autoattack", "CIFAR-10"),
        ("natural", "CIFAR-100"),
        ("autoattack", "CIFAR-100"),
    ]
    assert item["value_order"] == ["SA_c10", "AA_c10", "SA_c100", "AA_c100"]
    for method, values in item["values"].items():
        for (metric, data), value in zip(places, values, strict=True):
            yield number(name, metric, value, method=method, data=data)


def hours(name: str, item: Any) -> Iterator[Number]:
    yield from (number(name, "hours", value, method=method) for method, value in item["values"].items())


def shares(name: str, item: Any) -> Iterator[Number]:
    for rank, value in item["values"].items():
        yield number(name, "lora_over_total_percent", value, rank=rank)


READERS: dict[str, Callable[[str, Any], Iterator[Number]]] = {
    "autolora.T1": benchmark,
    "autolora.T2": benchmark,
    "autolora.T3": backbones,
    "autolora.T4": ranks,
    "autolora.T5": hyper_parameters,
    "autolora.T6": sensitivity,
    "autolora.T7": p_values,
    "autolora.T8": radii,
    "autolora.T9": automatic,
    "autolora.T10": exponents,
    "loft.T1": four_ways,
    "loft.T2": two_sets,
    "loft.T3": hours,
    "loft.T4": shares,
}


def held(suite: Suite) -> set[Number]:
    return {
        (suite.id, tuple(sorted((axis, str(level)) for axis, level in row.at.items())), metric, value)
        for row in suite.published
        for metric, value in row.values.items()
        if value is not None
    }


def test_there_is_a_suite_for_every_table_and_figure() -> None:
    assert suite_ids() == IDS
    assert all(read_suite(name).id == name for name in IDS)


@pytest.mark.parametrize("name", IDS)
def test_every_published_number_is_the_specifications(name: str, specification: dict[str, Any]) -> None:
    suite = read_suite(name)
    if name in READERS:
        assert held(suite) == set(READERS[name](name, specification[name]))
    else:
        assert suite.published == ()


def test_no_item_with_numbers_is_left_out(specification: dict[str, Any]) -> None:
    assert {name for name, item in specification.items() if item["values"] is not None} == set(READERS)


def test_all_published_numbers_together(specification: dict[str, Any]) -> None:
    """A reader that yields nothing would agree with a suite that holds nothing."""
    counts = {name: len(held(read_suite(name))) for name in READERS}
    assert counts["autolora.T1"] == counts["autolora.T2"] == 6 * 3 * 3
    assert counts["autolora.T5"] == 6 * (2 + 3)
    assert counts["autolora.T7"] == 2 * 6 * 2 * 3
    assert counts["autolora.T8"] == 2 * 2 * 3 * 5
    assert counts["loft.T2"] == 7 * 4


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("loft.T2", "loft.T3")])
def test_every_published_row_has_a_cell(name: str) -> None:
    """A level that is spelled otherwise in the grid than in the rows would find no number."""
    suite = read_suite(name)
    found = {
        (cell.at["model"], str(cell.at), metric)
        for cell in plan(suite, "paper").cells
        for metric in suite.metrics
        if published(suite, cell.at, metric) is not None
    }
    models = len(suite.grid["model"]) if "model" in suite.published[0].at else 1
    assert len(found) * (1 if models else 0) == len(held(suite))


@pytest.mark.parametrize("name", ["loft.T2", "loft.T3"])
def test_rows_that_only_the_paper_has_are_shown(name: str, tmp_path: Path) -> None:
    suite = read_suite(name)
    table = build_table(plan(suite, "paper"), Store(tmp_path))
    shown = {value.theirs for line in table.lines for value in line.numbers.values()}
    assert shown - {None} == {value for row in suite.published for value in row.values.values()}
    assert {str(line.at["method"]) for line in table.lines} >= {"acl", "advcl", "dynacl"}


@pytest.mark.parametrize(
    ("name", "metric"), [("autolora.T4", "table4_percent"), ("loft.T4", "lora_over_total_percent")]
)
def test_counted_parameters_are_the_published_ones(name: str, metric: str, tmp_path: Path) -> None:
    """To the printed digits; 0.63 is 0.637 without its last digit, as the specification found."""
    table = build_table(plan(read_suite(name), "paper"), Store(tmp_path))
    for line in table.lines:
        ours, theirs = line.numbers[metric].mean, line.numbers[metric].theirs
        assert ours is not None and theirs is not None
        assert ours == pytest.approx(theirs, abs=0.0071 if theirs == 0.63 else 0.005)


def test_the_runs_take_the_published_hyper_parameters(tmp_path: Path) -> None:
    """Table 5 against the options of Table 1's runs: rate, weight decay, and TWINS's weight of the frozen net."""
    for line in build_table(plan(read_suite("autolora.T5"), "paper"), Store(tmp_path)).lines:
        for metric, value in line.numbers.items():
            assert value.mean == value.theirs, (line.at, metric)
    options = {
        (cell.at["data"], cell.at["method"]): cell.jobs[0].options
        for cell in plan(read_suite("autolora.T1"), "paper").cells
    }
    for row in read_suite("autolora.T5").published:
        taken = options[row.at["data"], row.at["method"]]
        assert taken["lr"] == row.values["lr"] and taken["weight_decay"] == row.values["weight_decay"]
        assert taken["schedule"] == "multistep" and taken["epochs"] == 60 and taken["batch_size"] == 128


@pytest.mark.parametrize("name", IDS)
def test_claims_are_about_cells_that_are_there(name: str) -> None:
    """Every claim is tested at both scales, and the paper's own numbers agree with it on average."""
    suite = read_suite(name)
    for scale in ("small", "paper"):
        findings = build_table(plan(suite, scale), Store(Path("/nowhere"))).findings
        assert {finding.says for finding in findings} >= {claim.says for claim in suite.claims}
    for claim in suite.claims:
        for metric in claim.metrics:
            theirs = [f.published for f in findings if (f.says, f.metric) == (claim.says, metric) and f.published]
            if theirs:
                assert (sum(theirs) > 0) == claim.higher, (claim.says, metric, theirs)


@pytest.mark.parametrize("name", IDS)
def test_every_small_design_says_what_it_can_tell(name: str) -> None:
    suite = read_suite(name)
    assert suite.small is not None and suite.small.can and suite.small.cannot and suite.doubts


def test_no_doubt_is_without_a_suite() -> None:
    import yaml

    known = yaml.safe_load((FOLDER / "doubts.yaml").read_text(encoding="utf-8"))
    files = [yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) for name in IDS]
    assert set(known) == {doubt for content in files for doubt in content["doubts"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrcs": []}, "key 'metrcs' is unknown; did you mean metrics?"),
        ({"kind": "score"}, "kind='score' is unknown; did you mean scores?"),
        ({"doubts": ["selektion"]}, "doubt 'selektion' is unknown; did you mean selection?"),
        ({"published": {"columns": ["method", "accuracy"], "rows": []}}, "column 'accuracy' is neither an axis"),
        ({"published": {"columns": ["method", "natural"], "rows": [["at"]]}}, "['at'] has 1 cells, and there are 2"),
        ({"claims": [{"says": "x", "metrics": ["natural"], "higher": {"method": "at"}}]}, "key 'than' is missing"),
        ({"settings": {"small": "smal"}}, "there are no settings 'smal' in the package; did you mean small?"),
        ({"settings": {"small": {"like": "smal"}}}, "there are no settings 'smal' in the package"),
        ({"settings": {"small": {"like": "small", "sedes": [1]}}}, "key 'sedes' is unknown; did you mean seeds?"),
    ],
)
def test_a_suite_of_ones_own_that_cannot_be(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    import yaml

    content = {"paper": "ours", "title": "x", "grid": {"method": ["at"]}, "metrics": ["natural"]}
    settings = {"small": {"about": "x", "seeds": [0], "levels": {"method": {"at": {"method": "at"}}}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**content, "settings": settings, **change}))
    with pytest.raises(InputError) as error:
        read_suite(str(tmp_path / "own.yaml"))
    assert said in str(error.value)


def test_settings_like_those_of_the_package_say_only_what_differs(tmp_path: Path) -> None:
    """Entry by entry: another level of an axis leaves the axis' others, a list takes the place of a list."""
    text = """
paper: ours
title: x
grid: {method: [at, mine], lr: [0.1]}
metrics: [natural]
settings:
  small:
    like: small
    seeds: [1]
    options: {epochs: 2}
    levels: {method: {mine: {method: vanilla-rft, backbone: linf-8}}}
"""
    (tmp_path / "own.yaml").write_text(text)
    own, base = (plan(read_suite(name), "small").settings for name in (str(tmp_path / "own.yaml"), "autolora.T1"))
    assert own.seeds == (1,) and dict(own.options) == {**base.options, "epochs": 2}
    assert own.levels["method"] == {**base.levels["method"], "mine": {"method": "vanilla-rft", "backbone": "linf-8"}}
    assert (own.levels["eps_pt"], own.backbones, own.places) == (base.levels["eps_pt"], base.backbones, base.places)
