"""What tables say of finished runs: against scipy, and against an example that was worked by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from finished_runs import BY_HAND, IMAGES, Finished, attacked, own, small
from scipy import stats

from autolora.errors import InputError
from autolora.experiments.suites.effects import protocol_effects
from autolora.experiments.suites.findings import FAILED, HELD, OPEN, UNTESTED
from autolora.experiments.suites.formats import FORMATS, escaped
from autolora.experiments.suites.grid import Plan, plan
from autolora.experiments.suites.leaderboard import as_csv, as_json, leaderboard
from autolora.experiments.suites.notes import notes
from autolora.experiments.suites.page import as_html
from autolora.experiments.suites.protocols import protocol
from autolora.experiments.suites.reading import read_suite
from autolora.experiments.suites.sheet import Sheet
from autolora.experiments.suites.store import Mark, State, Store
from autolora.experiments.suites.table import Table, build_table
from autolora.models import build_model
from autolora.models.bundle import save_bundle


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def finished(store: Store) -> Finished:
    return Finished(store)


@pytest.fixture
def by_hand(finished: Finished) -> Plan:
    """Table 1 with the accuracies under PGD-10 above, seed by seed."""
    item = small()
    for cell in item.cells:
        for job, robust in zip(cell.jobs, BY_HAND[str(cell.at["method"])], strict=True):
            finished(job, robust)
    return item


def finding(table: Table, says: str, metric: str = "pgd-10") -> Any:
    (found,) = [f for f in table.findings if says in f.says and f.metric == metric]
    return found


# numbers and tests


def test_means_and_deviations_beside_the_published_numbers(by_hand: Plan, store: Store) -> None:
    table = build_table(by_hand, store)
    lines = {line.at["method"]: line.numbers["pgd-10"] for line in table.lines}
    for method, values in BY_HAND.items():
        assert lines[method].mean == pytest.approx(100 * mean(values))
        assert lines[method].deviation == pytest.approx(100 * stdev(values))
    assert lines["autolora"].theirs == 54.27  # of CIFAR-10, the first data set of Table 1
    assert lines["autolora"].difference == pytest.approx(52 - 54.27)
    assert dict(lines["twins-trades"].ours) == pytest.approx({0: 50.5, 6: 52, 66: 52.5})


def test_a_claim_worked_by_hand(by_hand: Plan, store: Store) -> None:
    """Means 52 and 48, variances 4 and 1: se = sqrt(4/3 + 1/3), t = 4 / se = 3.098, df = (5/3)^2 / (17/18) = 2.941."""
    found = finding(build_table(by_hand, store), "AutoLoRa is more robust than vanilla")
    assert found.difference == pytest.approx(4)
    assert found.test.t == pytest.approx(4 / (5 / 3) ** 0.5)
    assert found.test.df == pytest.approx((5 / 3) ** 2 / ((4 / 3) ** 2 / 2 + (1 / 3) ** 2 / 2))
    assert found.published == pytest.approx(54.27 - 52.97)
    assert found.decided_by == "Welch" and len(found.images) == 3


def test_p_values_are_scipys(by_hand: Plan, store: Store) -> None:
    table = build_table(by_hand, store)
    sides = {"than vanilla": ("autolora", "vanilla-rft"), "than TWINS": ("autolora", "twins-trades")}
    for says, (a, b) in sides.items():
        found = finding(table, f"AutoLoRa is more robust {says}")
        first, second = (100 * np.array(BY_HAND[name]) for name in (a, b))
        expected = stats.ttest_ind(first, second, equal_var=False)
        assert found.test.p == pytest.approx(expected.pvalue)
        assert found.ci95 == pytest.approx(tuple(expected.confidence_interval()))
        assert found.paired.p == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_p_values_are_adjusted_for_all_tests_of_the_table(by_hand: Plan, store: Store) -> None:
    """Holm by hand: the smallest times how many there are, the next times one less, and never falling."""
    findings = [(f.test.p, f.p_holm) for f in build_table(by_hand, store).findings if f.test is not None]
    assert len(findings) == 3  # under PGD-10; AutoAttack was not asked for, and natural accuracies are all the same
    ordered = sorted(findings)
    expected = np.maximum.accumulate([(3 - rank) * p for rank, (p, _) in enumerate(ordered)]).clip(max=1)
    assert [p_holm for _, p_holm in ordered] == pytest.approx(expected)


def test_images_of_one_seed_are_paired(by_hand: Plan, store: Store) -> None:
    """Of seed 0 AutoLoRa is right on the first 100 of 200 images, vanilla fine-tuning on the first 94."""
    found = finding(build_table(by_hand, store), "AutoLoRa is more robust than vanilla")
    seed, images = found.images[0]
    assert (seed, images.only_first, images.only_second, images.total) == (0, 6, 0, 200)


def test_one_seed_is_decided_on_images(finished: Finished, store: Store) -> None:
    item = small(seeds=[6])
    for cell, robust in zip(item.cells, (0.40, 0.41, 0.48), strict=True):
        finished(cell.jobs[0], robust)
    found = finding(build_table(item, store), "AutoLoRa is more robust than vanilla")
    assert found.decided_by == "exact McNemar" and found.difference == pytest.approx(8)
    assert found.test.p == pytest.approx(stats.binomtest(16, 16).pvalue)
    assert found.detectable == pytest.approx(100 * 2.8016 * (16 / 200 / 200) ** 0.5, rel=0.3)
    assert found.verdict == "held up for one seed"
    assert "whether their methods differ takes two or more seeds" in " ".join(notes(build_table(item, store), store))


def test_what_the_table_could_have_shown(by_hand: Plan, store: Store) -> None:
    """Of experiments whose true difference is that, at Welch's standard error, four in five find it at 5 % / 3."""
    found = finding(build_table(by_hand, store), "AutoLoRa is more robust than vanilla")
    rng, df = np.random.default_rng(0), found.test.df
    drawn = rng.standard_normal(200_000) + found.detectable / (5 / 3) ** 0.5
    drawn /= np.sqrt(rng.chisquare(df, 200_000) / df)
    assert np.mean(np.abs(drawn) >= stats.t.ppf(1 - 0.05 / 3 / 2, df)) == pytest.approx(0.8, abs=0.01)
    text = " ".join(notes(build_table(by_hand, store), store))
    assert "adjusted for the 3 tests" in text and f"{found.detectable:.2f}" in text


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [((0.6, 0.605, 0.61), HELD), ((0.3, 0.305, 0.31), FAILED), ((0.2, 0.5, 0.8), OPEN), ((), UNTESTED)],
)
def test_verdicts(ours: Sequence[float], verdict: str, finished: Finished, store: Store) -> None:
    item = small()
    for cell in item.cells:
        values = ours if cell.at["method"] == "autolora" else (0.45, 0.455, 0.46)
        for job, robust in zip(cell.jobs, values, strict=False):
            finished(job, robust)
    assert finding(build_table(item, store), "AutoLoRa is more robust than vanilla").verdict == verdict


def test_a_claim_about_how_far_accuracies_lie_apart(finished: Finished, store: Store) -> None:
    """The range over the rates, seed by seed: 2, 3 and 4 points against 20, 19 and 18; the claim is the lower range."""
    item = small("autolora.T6")
    spread = {"autolora-multistep": (0.02, 0.03, 0.04), "vanilla-rft": (0.2, 0.19, 0.18)}
    for cell in item.cells:
        for job, far in zip(cell.jobs, spread.get(str(cell.at["method"]), ()), strict=False):
            finished(job, 0.4, natural=0.5 + far * (cell.at["lr"] == 0.01) / 1 + far / 2 * (cell.at["lr"] == 0.03))
    found = finding(build_table(item, store), "depends less on the first rate than in vanilla", "natural")
    assert found.difference == pytest.approx(3 - 19)
    assert found.published == pytest.approx((62.88 - 61.97) - (58.55 - 49.1))
    assert found.verdict == HELD
    assert finding(build_table(item, store), "than in TWINS", "natural").verdict == UNTESTED


def test_table_of_p_values(finished: Finished, store: Store) -> None:
    item = small("autolora.T7")
    for cell in item.cells:
        for job, robust in zip(cell.jobs, BY_HAND[str(cell.at["method"])], strict=True):
            finished(job, robust if cell.at["model"] == "resnet18" else robust - 0.1, 0.8)
    table = build_table(item, store)
    assert len(table.lines) == 4
    line = next(line for line in table.lines if line.at["model"] == "resnet50" and line.at["method"] == "twins-trades")
    a, b = (np.array(BY_HAND[name]) - 0.1 for name in ("autolora", "twins-trades"))
    assert line.numbers["pgd-10"].mean == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert line.numbers["pgd-10"].theirs == 0.0341
    assert line.numbers["natural"].mean is None  # it does not vary
    assert "difference" not in FORMATS["text"](Sheet(table, [])).splitlines()[2]


def test_a_sample_of_the_test_images_counts_where_all_runs_were_judged_on_it(by_hand: Plan, store: Store) -> None:
    for cell in by_hand.cells:
        for job in cell.jobs:
            more = 2 * (cell.at["method"] == "autolora") + (job.seed == 6)
            attacked(store.path(job), [1] * (4 + more) + [0] * (6 - more))
    table = build_table(by_hand, store)
    found = finding(table, "AutoLoRa is more robust than vanilla", "autoattack")
    assert found.test is not None and found.difference == pytest.approx(20)
    assert [pair.total for _, pair in found.images] == [10] * 3
    assert [pair.only_first - pair.only_second for _, pair in found.images] == [2] * 3
    said = notes(table, store)
    assert f"AA: on 10 of the {IMAGES} test images, the same for all runs." in said and "AA: a sample's." in said
    assert not any("left out" in note for note in said)


def test_samples_of_other_sizes_are_not_mixed(by_hand: Plan, store: Store) -> None:
    first, second = by_hand.cells[0].jobs[:2]
    attacked(store.path(first), [1] * 10)
    attacked(store.path(second), [1] * 9)
    with pytest.raises(InputError, match="were judged on 10 and 9 images under autoattack; move one"):
        build_table(by_hand, store)


def test_data_sets_have_as_many_test_images_as_they_have(finished: Finished, store: Store, tmp_path: Path) -> None:
    """Sizes differ from one data set to another; of one, runs were judged on all of its images or all on samples."""
    item = own(tmp_path, {"data": ["a", "b"], "method": ["at", "ft"]}, ["natural"])
    for cell in item.cells:
        first = cell.at["data"] == "a"
        finished(cell.jobs[0], 0.4, natural=0.5, fingerprint=str(cell.at["data"]) * 64, images=100 if first else 50)
    numbers = [line.numbers["natural"].mean for line in build_table(item, store).lines]
    assert numbers == [50.0] * 4


def test_only_finished_runs_are_read(by_hand: Plan, store: Store) -> None:
    gone, failed, killed = by_hand.cells[0].jobs
    (store.path(failed) / "result.json").unlink()
    store.note(failed, Mark(State.FAILED, "a loss is not finite", 1))
    (store.path(killed) / "result.json").unlink()
    table = build_table(by_hand, store)
    assert set(table.lines[0].numbers["pgd-10"].ours) == {gone.seed}
    assert "9 runs with the seeds 0, 6, 66: 1 interrupted, 1 failed, 7 finished" in notes(table, store)[0]


def test_runs_that_saw_other_data_are_refused(finished: Finished, store: Store) -> None:
    item = small()
    finished(item.cells[0].jobs[0], 0.4)
    finished(item.cells[1].jobs[0], 0.4, fingerprint="1" * 64)
    with pytest.raises(InputError, match="saw different data under the name photos"):
        build_table(item, store)


@pytest.mark.parametrize(("other", "tested"), [("0" * 64, True), ("1" * 64, False)])
def test_images_of_other_data_are_not_paired(
    other: str, tested: bool, finished: Finished, store: Store, tmp_path: Path
) -> None:
    """Index and label are the same column in both data sets, and the images behind them are not."""
    claim = {"says": "a is easier", "metrics": ["natural"], "higher": {"data": "a"}, "than": {"data": "b"}}
    item = own(tmp_path, {"data": ["a", "b"]}, ["natural"], claims=[claim])
    for cell, right, fingerprint in zip(item.cells, (0.9, 0.5), ("0" * 64, other), strict=True):
        finished(cell.jobs[0], 0.4, natural=right, fingerprint=fingerprint)
    (found,) = build_table(item, store).findings
    assert (found.decided_by, len(found.images)) == (("exact McNemar", 1) if tested else ("", 0))
    assert (
        tested or found.why_not == "a test takes two seeds of both sides, or one seed of both on the same test images"
    )


def test_what_another_protocol_changes(finished: Finished, store: Store) -> None:
    item, other = small(), small(protocol=protocol(habits=["select-on-test"]))
    for chosen, more in ((item, 0.0), (other, 0.02)):
        for cell in chosen.cells:
            for job, robust in zip(cell.jobs, BY_HAND[str(cell.at["method"])], strict=True):
                finished(job, robust + more)
    effects = protocol_effects(build_table(item, store), build_table(other, store))
    assert [round(effect.difference or 0, 6) for effect in effects if effect.metric == "pgd-10"] == [2, 2, 2]
    found = next(effect for effect in effects if "vanilla-rft" in effect.where and effect.metric == "pgd-10")
    a = 100 * np.array(BY_HAND["vanilla-rft"])
    assert found.test is not None
    assert found.test.p == pytest.approx(stats.ttest_ind(a + 2, a, equal_var=False).pvalue)
    assert found.says == "select-on-test gives more than sound"


# formats


def test_csv_holds_the_numbers(by_hand: Plan, store: Store) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](Sheet(build_table(by_hand, store), [])))))
    assert len(rows) == 3 * 3
    (row,) = [row for row in rows if row["method"] == "autolora" and row["metric"] == "pgd-10"]
    assert (float(row["ours"]), float(row["standard_deviation"])) == pytest.approx((52, 2))
    assert (row["seeds"], row["theirs"], row["data"]) == ("0 6 66", "54.27", "five of CIFAR-10")


def test_json_holds_everything(by_hand: Plan, store: Store) -> None:
    table = build_table(by_hand, store)
    content = json.loads(FORMATS["json"](Sheet(table, notes(table, store))))
    assert (content["suite"], content["scale"], content["protocol"]) == ("autolora.T1", "small", "sound")
    (row,) = [row for row in content["rows"] if row["at"]["method"] == "autolora"]
    assert row["metrics"]["pgd-10"]["ours"]["by_seed"] == pytest.approx({"0": 50, "6": 52, "66": 54})
    claim = content["claims"][0]
    assert claim["first"] == "autolora" and claim["p"] < claim["p_holm"] and claim["detectable"] > 0
    assert claim["mcnemar"][0]["only_first"] == 6
    assert content["doubts"] == list(table.suite.doubts)


def test_markdown_and_text_show_ours_beside_theirs(by_hand: Plan, store: Store) -> None:
    sheet = Sheet(build_table(by_hand, store), [])
    (line,) = [
        line
        for line in FORMATS["markdown"](sheet).splitlines()
        if line.startswith("| ResNet-20") and "| autolora |" in line
    ]
    assert [cell.strip() for cell in line.strip("|").split("|")][6:9] == ["52.00 \u00b1 2.00", "54.27", "-2.27"]
    assert "52.00 \u00b1 2.00   54.27" in FORMATS["text"](sheet)


def test_a_number_of_fewer_seeds_says_so(finished: Finished, store: Store) -> None:
    """Two of three seeds of one method, one of another; what needs no run is of no seed."""
    item = small("autolora.T4")
    for cell, seeds in zip(item.cells, ((0, 6, 66), (0, 6), (66,)), strict=False):
        for job in (job for job in cell.jobs if job.seed in seeds):
            finished(job, 0.5, natural=0.8 if job.seed else 0.78)
    sheet = Sheet(build_table(item, store), [])
    lines = [line for line in FORMATS["markdown"](sheet).splitlines() if "| ResNet-20 |" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    natural = cells[0].index("79.33 \u00b1 1.15")
    assert [row[natural] for row in cells[1:]] == ["79.00 \u00b1 1.41 (2 seeds)", "80.00 (seed 66)", ""]
    assert all("seed" not in cell for row in cells for cell in row[:natural])  # the share of parameters is counted
    assert "79.00 \u00b1 1.41 (2 seeds)" in FORMATS["text"](sheet) and "80.00 (seed 66)" in FORMATS["latex"](sheet)


def test_a_number_of_all_planned_seeds_says_none(finished: Finished, store: Store) -> None:
    item = small(seeds=[6])
    for cell in item.cells:
        finished(cell.jobs[0], 0.5)
    assert "50.00   " in (text := FORMATS["text"](Sheet(build_table(item, store), []))) and "(seed" not in text


def test_on_a_terminal_claims_and_notes_are_lines_of_its_width(by_hand: Plan, store: Store) -> None:
    table = build_table(by_hand, store)
    said = FORMATS["text"](Sheet(table, ["a note " * 30, "another"])).split("Claims, and what our runs say:")[1]
    found = finding(table, "AutoLoRa is more robust than vanilla")
    start = said.index("  AutoLoRa is more robust than vanilla robust fine-tuning\n    five of CIFAR-10, PGD-10: ")
    claim = said[start:].split("\n\n")[0]
    assert f"PGD-10: {found.verdict}\n" in claim and f"theirs +1.30; ours {found.difference:+.2f} [" in claim
    assert f"would have shown {found.detectable:.2f}" in claim and "after Holm" in claim
    assert "AA: not tested: there is no finished run" in said
    assert max(map(len, said.splitlines())) <= 120 and said.count("\n  - ") == 2 + len(table.suite.doubts)


def test_latex_escapes_and_is_balanced(by_hand: Plan, store: Store) -> None:
    assert escaped("5 % of a_b & {c} #1 $2 ~ ^ \\ < \u00b1") == (
        r"5 \% of a\_b \& \{c\} \#1 \$2 \textasciitilde{} \textasciicircum{} \textbackslash{} $<$ $\pm$"
    )
    text = FORMATS["latex"](Sheet(build_table(by_hand, store), ["5 % & more"]))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    tabular = text[text.index(r"\begin{tabular}") : text.index(r"\end{tabular}")].splitlines()
    columns = tabular[0].count("l", tabular[0].index("}{"))
    assert all(line.count(" & ") == columns - 1 for line in tabular if line.endswith(r"\\"))
    assert r"52.00 $\pm$ 2.00" in text and r"5 \% \& more" in text and "\u00b1" not in text


def test_a_cell_with_a_bar_stays_a_cell(store: Store, finished: Finished, tmp_path: Path) -> None:
    at = {"method": "at", "data": "d", "label": "a|t"}
    settings = {"small": {"about": "x", "seeds": [0], "levels": {"method": {"at": at}}}}
    content = {"paper": "a|b", "title": "x|y", "grid": {"method": ["at"]}, "metrics": ["natural"], "settings": settings}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    table = build_table(plan(read_suite(str(tmp_path / "own.yaml")), "small"), store)
    assert "| a\\|t |" in FORMATS["markdown"](Sheet(table, []))


# all runs


@pytest.fixture
def listed(finished: Finished, store: Store) -> Store:
    """Four runs: two of AutoLoRa that differ in everything sorted by, one of vanilla fine-tuning, one damaged."""
    first, second = small("autolora.T4").cells[:2]
    vanilla = small().cells[0]
    note = "VALIDATION-IMAGES-ARE-TEST-IMAGES is not used: it is no folder of class folders called train, val or test"
    folders = [
        finished(first.jobs[0], 0.4, 0.7, seconds=30),
        finished(second.jobs[0], 0.5, 0.6, seconds=20, note=note),
        finished(vanilla.jobs[0], 0.45, 0.65, seconds=10),
    ]
    with torch.random.fork_rng():
        model = build_model("resnet20_cifar", classes=5, weights="none")
    for folder in folders:
        save_bundle(model, folder / "model", list("abcde"), {})
    (store.folder / "broken").mkdir()
    (store.folder / "broken" / "result.json").write_text("{}")
    return store


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("data", [0.7, 0.6, 0.65]),
        ("sa", [0.7, 0.65, 0.6]),
        ("pgd-10", [0.6, 0.65, 0.7]),
        ("time", [0.65, 0.6, 0.7]),
        ("method", [0.7, 0.6, 0.65]),
    ],
)
def test_every_finished_run_sorted(sort: str, expected: list[float], listed: Store) -> None:
    entries = leaderboard(listed.folder, sort)
    assert [entry.natural for entry in entries] == pytest.approx([100 * value for value in expected])


def test_what_is_listed_of_a_run(listed: Store) -> None:
    """Parameters as torch counts them; the pairs of a 3x3 convolution are 9 (in + out) per unit of rank, no stem."""
    first, second, third = leaderboard(listed.folder)
    assert (first.data, first.method, first.seed) == ("photos.zip (5 classes)", "autolora rank=2", 0)
    assert (third.method, third.low_rank, third.autoattack) == ("vanilla-rft, multistep", None, None)
    with torch.random.fork_rng():
        model = build_model("resnet20_cifar", classes=5, weights="none")
    assert {entry.parameters for entry in (first, second, third)} == {sum(p.numel() for p in model.parameters())}
    pairs = sum(
        9 * (conv.in_channels + conv.out_channels)
        for name, conv in model.backbone.named_modules()
        if isinstance(conv, torch.nn.Conv2d) and name != "conv1"
    )
    assert (first.low_rank, second.low_rank) == (2 * pairs, 4 * pairs)
    assert (first.selected_on, second.selected_on) == ("val", "test")


def test_of_a_sample_it_says_how_many_images_it_is_of(listed: Store) -> None:
    run = Path(leaderboard(listed.folder)[0].folder)
    attacked(run, [1, 1, 1, 0])
    first, second, _ = leaderboard(listed.folder, "aa")
    assert (first.folder, first.autoattack, first.autoattack_images) == (str(run), 75.0, 4)
    assert (second.autoattack, second.autoattack_images) == (None, None)


def test_a_run_that_cannot_be_read_is_said_and_left_out(listed: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert len(leaderboard(listed.folder)) == 3
    assert "broken" in caplog.text


class Cells(HTMLParser):
    """The texts of a page's table, row by row, and what else it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.values: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.rows += [[]] * (tag == "tr")
        if tag == "tr":
            self.rows[-1] = []
        if tag in ("th", "td"):
            self.rows[-1].append("")
        self.values += [found["data-value"] or ""] if "data-value" in found else []
        self.loads += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_the_page_holds_every_run_and_needs_nothing_else(listed: Store) -> None:
    entries = leaderboard(listed.folder)
    page = Cells()
    page.feed(as_html(entries))
    assert len(page.rows) == 4 and page.loads == []
    assert page.rows[1][:2] == ["photos.zip (5 classes)", "autolora rank=2"]
    assert "40.0" in page.values and "" in page.values
    assert [json.loads(as_json(entries))[n]["pgd_10"] for n in range(3)] == pytest.approx([40, 50, 45])
    assert len(list(csv.DictReader(io.StringIO(as_csv(entries))))) == 3


def test_what_cannot_be_listed(listed: Store) -> None:
    with pytest.raises(InputError, match="sort='acc' is unknown"):
        leaderboard(listed.folder, "acc")
    with pytest.raises(InputError, match="is no folder"):
        leaderboard(listed.folder / "nowhere")
