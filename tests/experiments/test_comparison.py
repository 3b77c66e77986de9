"""Runs that are compared image by image and seed by seed, and runs that must not be compared at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autolora.data import load_splits
from autolora.errors import InputError
from autolora.experiments.comparison import compare
from autolora.experiments.conclusion import caveats, in_points, interval, p_value, verdict
from autolora.experiments.judged import read_judged
from autolora.experiments.selection import LABEL

HELD_OUT = "there is no test split: 10 of 50 images were held out"
GIVEN = "validation: 10 of 40 training images (25 %), standard error up to 15.8 points"


class Runs:
    """Writes run folders as a run does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(
        self,
        name: str,
        robust: Sequence[int],
        *,
        natural: Sequence[int] | None = None,
        seed: int = 0,
        note: str = GIVEN,
        more: Mapping[str, Sequence[int]] | None = None,
        **options: Any,
    ) -> Path:
        folder = self.root / name
        columns = {"natural": natural or [1] * len(robust), "pgd-10": robust, **(more or {})}
        content = {
            "status": "complete",
            "config": {"data": "photos/", "method": "autolora", **options, "seed": seed, "out": str(folder)},
            "data": {"classes": ["ant", "bee"], "fingerprint": "56837a97" * 8, "notes": [note], "majority": 0.5},
            "threat_model": {"norm": "Linf", "eps": "8/255", "radius": 8 / 255},
            "scores": {
                metric: {"accuracy": sum(right) / len(right), "correct": sum(right), "total": len(right)}
                for metric, right in columns.items()
            },
        }
        (folder / "evaluation").mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(content))
        lines = [["index", "label", "predicted", *columns]]
        half = len(robust) // 2
        for index, verdicts in enumerate(zip(*columns.values(), strict=True)):
            lines.append([str(index), str(int(index >= half)), "0", *map(str, verdicts)])
        (folder / "evaluation" / "verdicts.csv").write_text("".join(",".join(line) + "\n" for line in lines))
        return folder

    def change(self, folder: Path, *names: str, to: Any) -> None:
        content = json.loads((folder / "result.json").read_text())
        inner = content
        for name in names[:-1]:
            inner = inner[name]
        inner[names[-1]] = to
        (folder / "result.json").write_text(json.dumps(content))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def first(count: int, total: int) -> list[int]:
    """Return verdicts: the first ``count`` images are right."""
    return [1] * count + [0] * (total - count)


# one run each


def test_two_runs_on_the_same_images(runs: Runs) -> None:
    """Seven images only a is right on, one only b, by hand: p = 2 (1 + 8) / 2^8."""
    a = runs("a", [1] * 7 + [0] + [1] * 4 + [0] * 8)
    b = runs("b", [0] * 7 + [1] + [1] * 4 + [0] * 8, method="at")
    (contrast,) = compare([a, b]).contrasts
    found = contrast.differences["pgd-10"].deciding
    assert found is not None
    assert found.difference == pytest.approx(6 / 20)
    assert found.p == pytest.approx(18 / 256)
    natural = contrast.differences["natural"].deciding
    assert natural is not None
    assert (natural.difference, natural.p) == (0, 1)
    assert dict(contrast.differ_in) == {"method": ("autolora", "at")}


def test_the_verdict_says_which_is_better(runs: Runs) -> None:
    """Ten images against none: p = 2 / 2^10."""
    a, b = runs("a", first(5, 40)), runs("b", first(15, 40), method="at")
    assert verdict(compare([a, b])).startswith("Under pgd-10 at is better than autolora by 25.0 points (95 % [12.5, ")
    assert verdict(compare([b, a])).startswith("Under pgd-10 at is better than autolora by 25.0 points (95 % [12.5, ")
    assert verdict(compare([a, b])).endswith(", exact McNemar p = 0.002).")
    assert verdict(compare([a, b], "natural")).startswith(
        "On natural images no difference between autolora and at could"
    )


def test_the_verdict_says_what_could_not_be_shown(runs: Runs) -> None:
    a = runs("a", [1] * 12 + [0] * 9 + [0] * 79)
    b = runs("b", [0] * 12 + [1] * 9 + [0] * 79, method="at")
    comparison = compare([a, b])
    detectable = 100 * (1.959964 + 0.841621) * math.sqrt(21) / 100
    p = stats.binomtest(9, 21).pvalue
    assert verdict(comparison).startswith(
        "Under pgd-10 no difference between autolora and at could be shown: 3.0 points for autolora (95 % [-6.0, 12.0]"
    )
    assert verdict(comparison).endswith(
        f"exact McNemar p = {p:.2g}); with 100 images a difference of about {detectable:.1f} points would have been."
    )
    notes = " ".join(caveats(comparison))
    assert "two trained models, one seed each" in notes
    assert "level 0.05 finds" in notes


def test_too_few_images_for_anything(runs: Runs) -> None:
    a, b = runs("a", first(3, 4)), runs("b", first(2, 4), method="at")
    assert verdict(compare([a, b])).endswith("; with 4 images none could have been.")


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=4, max_size=40))
@settings(max_examples=15, deadline=None)
def test_swapping_the_runs_swaps_the_signs(
    tmp_path_factory: pytest.TempPathFactory, verdicts: list[tuple[int, int]]
) -> None:
    runs = Runs(tmp_path_factory.mktemp("runs"))
    a, b = runs("a", [x for x, _ in verdicts]), runs("b", [y for _, y in verdicts], method="at")
    there, back = (compare(pair).contrasts[0].differences["pgd-10"].deciding for pair in ([a, b], [b, a]))
    assert there is not None and back is not None
    assert there.difference == -back.difference
    assert there.p == pytest.approx(back.p)
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))


# several seeds


def test_runs_that_differ_in_the_seed_are_one_group(runs: Runs) -> None:
    """Nor does where, how fast and how often saved a run was make another configuration."""
    folders = [runs(f"a{seed}", first(10 + seed, 40), seed=seed, rank=8) for seed in (6, 0)]
    folders.append(runs("a66", first(12, 40), seed=66, rank=8, data="elsewhere.zip", workers=4, compile="on"))
    manner: dict[str, Any] = {"checkpoint_minutes": 5, "data_root": "/mnt", "device": "cpu", "skip_bad_images": True}
    folders.append(runs("a1", first(15, 40), seed=1, rank=8, **manner))
    folders.append(runs("b0", first(9, 40), rank=4))
    folders.append(runs("c0", first(9, 40), method="at"))
    comparison = compare(folders)
    assert [(group.name, group.seeds) for group in comparison.groups] == [
        ("autolora, rank 8", [0, 1, 6, 66]),
        ("autolora, rank 4", [0]),
        ("at", [0]),
    ]
    group = comparison.groups[0]
    assert group.accuracies("pgd-10") == [10 / 40, 15 / 40, 16 / 40, 12 / 40]
    assert group.mean("pgd-10") == pytest.approx(53 / 160)
    assert group.deviation("pgd-10") == pytest.approx(math.sqrt((13**2 + 7**2 + 11**2 + 5**2) / 16 / 3) / 40)
    assert comparison.groups[1].deviation("pgd-10") is None


def test_an_option_set_to_its_default_is_one_that_is_not_set(runs: Runs) -> None:
    """Table 10's exponent 1 is Table 1's run, and 0.0313725 is 8/255; another exponent is another group."""
    written: dict[str, Any] = {"method_options": {"alpha": 1.0}, "eps": "0.03137254901960784", "rank": 8}
    folders = [runs("a", first(9, 40)), runs("b", first(10, 40), seed=1, **written)]
    folders.append(runs("c", first(9, 40), method_options={"alpha": 2}))
    assert [(group.name, group.seeds) for group in compare(folders).groups] == [
        ("autolora, method-options.alpha default", [0, 1]),
        ("autolora, method-options.alpha 2", [0]),
    ]


def test_options_that_are_none_end_in_a_line(runs: Runs) -> None:
    folders = [runs("a", first(9, 40)), runs("b", first(9, 40), method="at", epochs="many")]
    with pytest.raises(InputError, match=r"b/result\.json, config: "):
        compare(folders)


def test_an_option_that_a_run_does_not_know_is_at_its_default(runs: Runs) -> None:
    folders = [runs("old", first(9, 40)), runs("new", first(10, 40), seed=1, rank=None, label_fraction=1.0)]
    assert [group.seeds for group in compare([*folders, runs("b", first(9, 40), rank=2)]).groups] == [[0, 1], [0]]


def seeds(runs: Runs, name: str, counts: dict[int, int], note: str = GIVEN, **options: Any) -> list[Path]:
    return [runs(f"{name}{seed}", first(count, 200), seed=seed, note=note, **options) for seed, count in counts.items()]


def test_seeds_are_compared_by_welch_and_in_pairs(runs: Runs) -> None:
    counts = {0: 100, 6: 108, 66: 104}, {0: 90, 6: 101, 66: 94}
    folders = [*seeds(runs, "a", counts[0]), *seeds(runs, "b", counts[1], method="at")]
    comparison = compare(folders)
    difference = comparison.contrasts[0].differences["pgd-10"]
    a, b = ([count / 200 for count in group.values()] for group in counts)
    welch, paired = stats.ttest_ind(a, b, equal_var=False), stats.ttest_rel(a, b)
    assert difference.welch is not None and difference.paired is not None
    assert difference.deciding is difference.welch
    assert (difference.welch.p, difference.paired.p) == pytest.approx((welch.pvalue, paired.pvalue))
    assert difference.welch.difference == pytest.approx(difference.paired.difference) == pytest.approx(9 / 200)
    found = {pair: (counts.only_first, counts.only_second) for pair, counts in difference.images}
    assert found == {(0, 0): (10, 0), (6, 6): (7, 0), (66, 66): (10, 0)}
    low, high = welch.confidence_interval(0.95)
    assert verdict(comparison) == (
        "Under pgd-10 no difference between autolora and at could be shown: 4.5 points for autolora "
        f"(95 % [{100 * low:.1f}, {100 * high:.1f}], Welch p = {welch.pvalue:.2g}); with 3 and 3 seeds a difference of "
        f"about {100 * difference.welch.detectable():.1f} points would have been."
    )
    assert not any("one seed each" in note for note in caveats(comparison))


def test_only_the_same_seed_is_paired_where_the_seed_draws_the_images(runs: Runs) -> None:
    folders = [
        *seeds(runs, "a", {0: 100, 1: 110}, note=HELD_OUT),
        *seeds(runs, "b", {1: 90, 2: 95}, note=HELD_OUT, method="at"),
    ]
    difference = compare(folders).contrasts[0].differences["pgd-10"]
    assert [(pair, counts.only_first, counts.only_second) for pair, counts in difference.images] == [((1, 1), 20, 0)]
    assert difference.paired is None
    assert difference.deciding is difference.welch is not None


def test_seeds_without_a_pair(runs: Runs) -> None:
    folders = [
        *seeds(runs, "a", {0: 100, 1: 110}, note=HELD_OUT),
        *seeds(runs, "b", {2: 60, 3: 64}, note=HELD_OUT, method="at"),
    ]
    comparison = compare(folders)
    assert comparison.contrasts[0].differences["pgd-10"].images == ()
    assert "autolora is better than at by 21.5 points" in verdict(comparison)
    assert any("no seed in common" in note for note in caveats(comparison))


def test_three_seeds_against_one(runs: Runs) -> None:
    folders = [*seeds(runs, "a", {0: 100, 1: 180, 2: 180}), *seeds(runs, "b", {0: 90}, method="at")]
    comparison = compare(folders)
    found = comparison.contrasts[0].differences["pgd-10"].deciding
    assert found is not None
    assert (found.difference, found.p) == pytest.approx((10 / 200, 2 / 2**10))
    assert any("only the runs of seed 0 are tested" in note for note in caveats(comparison))


def test_accuracies_that_do_not_vary_make_no_test(runs: Runs) -> None:
    folders = [*seeds(runs, "a", {0: 100, 1: 100}), *seeds(runs, "b", {0: 90, 1: 90}, method="at")]
    assert verdict(compare(folders)) == (
        "Under pgd-10 no test of autolora against at is possible, as no accuracy varies over the seeds."
    )
    assert compare(folders).adjusted("pgd-10") == [None]


def test_one_configuration_is_no_comparison(runs: Runs) -> None:
    comparison = compare(seeds(runs, "a", {0: 100, 1: 110}))
    assert comparison.contrasts == ()
    assert verdict(comparison).startswith("The 2 runs differ in nothing but the seed")
    assert caveats(comparison) == []


def test_more_than_two_are_corrected(runs: Runs) -> None:
    """Against 20: 12, 11 and 20 right. p = 2 / 2^8, 2 / 2^9 and 1; Holm: times 2, 3 and 1."""
    folders = [runs("a", first(20, 60)), runs("b", first(12, 60), method="at")]
    folders += [runs("c", first(11, 60), method="ft"), runs("d", first(20, 60), method="loft")]
    comparison = compare(folders)
    assert comparison.adjusted("pgd-10") == pytest.approx([4 / 256, 6 / 512, 1])
    text = verdict(comparison)
    assert "autolora is better than at by 13.3 points" in text
    assert "exact McNemar p = 0.016 after Holm); autolora is better than ft by 15.0 points" in text
    assert text.endswith("would have been.")
    z = 2.393980 + 0.841621  # 1 - 0.05 / 3 / 2, and 0.8; no image is discordant
    assert f"with 60 images a difference of about {100 * z**2 / 60:.1f} points would have been" in text
    notes = " ".join(caveats(comparison))
    assert "for 3 comparisons" in notes
    assert "level 0.05 / 3" in notes


# what has to be known


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ((None, "val", "val"), None),
        (("test", "val", "test"), "Runs of autolora had their epoch selected on the test images"),
        (("test", "test", "test"), "The epoch of every run was selected on the test images"),
    ],
)
def test_who_was_selected_on_test_images_is_said(runs: Runs, stated: tuple[str | None, ...], said: str | None) -> None:
    """Two seeds of one configuration, and one of another between them."""
    folders = [runs("a", first(9, 40)), runs("b", first(12, 40), method="at"), runs("c", first(10, 40), seed=1)]
    for folder, where in zip(folders, stated, strict=True):
        if where is not None:
            runs.change(folder, "selected_on", to=where)
    notes = [note for note in caveats(compare(folders)) if "test images themselves" in note]
    assert len(notes) == int(said is not None) and all(note.startswith(said or "") for note in notes)


def test_a_run_of_before_says_by_its_notes_that_it_was_selected_on_test_images(runs: Runs) -> None:
    a, b = runs("a", first(9, 40)), runs("b", first(12, 40), method="at", note=f"the data: {LABEL}")
    notes = " ".join(caveats(compare([a, b])))
    assert "Runs of at had their epoch selected on the test images themselves" in notes
    assert "the comparison favours them" in notes


@pytest.mark.parametrize(
    ("beginnings", "options", "said"),
    [
        (("x", "x"), {}, False),
        (("x", "y"), {}, True),
        (("x", None), {}, False),  # one of them does not say
        (("x", "y"), {"model": "runs/other/model"}, False),  # another backbone, which the comparison says
        (("x", "y"), {"adapter": "runs/first/adapter"}, False),  # a merged adapter changes it
        (("x", "y"), {"weights": "none"}, False),
    ],
)
def test_different_weights_under_one_name_are_said(
    runs: Runs, beginnings: tuple[str | None, ...], options: dict[str, Any], said: bool
) -> None:
    """A path names a place, and what lies there may have been trained anew between two runs."""
    both: dict[str, Any] = {"model": "runs/backbone/model", **({"weights": "none"} if "weights" in options else {})}
    folders = [runs("a", first(9, 40), **both), runs("b", first(12, 40), method="at", **{**both, **options})]
    for folder, beginning in zip(folders, beginnings, strict=True):
        runs.change(folder, "model", to={} if beginning is None else {"started_from": beginning})
    comparison = compare(folders)
    sentence = (
        "Runs of autolora; at name the same backbone, runs/backbone/model, and began with 2 sets of its weights: part "
        "of the differences between them is that of their backbones, which no test here allows for."
    )
    found = [note for note in caveats(comparison) if "backbone" in note]
    assert found == ([sentence] if said else [])


# metrics


@pytest.mark.parametrize(
    ("others", "strongest"),
    [
        (["pgd-20", "autoattack-fast", "autoattack"], "autoattack"),
        (["pgd-20", "autoattack-fast"], "autoattack-fast"),
        (["pgd-20", "pgd-7"], "pgd-20"),
        ([], "pgd-10"),
    ],
)
def test_the_strongest_attack_decides(runs: Runs, others: list[str], strongest: str) -> None:
    more = {metric: first(9, 20) for metric in others}
    folders = [runs(method, first(10, 20), more=more, method=method) for method in ("ft", "at")]
    assert compare(folders).decisive == strongest
    assert compare(folders, "natural").decisive == "natural"


def test_a_metric_that_one_run_lacks_is_left_out(runs: Runs) -> None:
    folders = [runs("a", first(9, 20), more={"autoattack": first(8, 20)}), runs("b", first(9, 20), method="at")]
    comparison = compare(folders)
    assert comparison.metrics == ("natural", "pgd-10")
    assert comparison.left_out == (f"autoattack is left out: {folders[1]} has no score for it",)
    assert f"Autoattack is left out: {folders[1]} has no score for it." in caveats(comparison)
    with pytest.raises(InputError, match=r"metric 'autoattack' cannot be compared: .*b has no score for it; all runs"):
        compare(folders, "autoattack")
    with pytest.raises(InputError, match="metric 'pgd-30' cannot be compared: no run has such a score; all runs have"):
        compare(folders, "pgd-30")
    runs.change(folders[1], "scores", "autoattack", to={"correct": 8, "total": 20})
    assert compare(folders).left_out == (
        f"autoattack is left out: {folders[1]} has no verdicts for it in evaluation/verdicts.csv",
    )


def test_attacks_of_one_name_that_are_not_the_same(runs: Runs) -> None:
    folders = [runs(name, first(9, 20), more={"autoattack": first(8, 20)}, method=name) for name in ("ft", "at")]
    for folder, label in zip(folders, ("AA (standard)", "AA (rand)"), strict=True):
        runs.change(folder, "scores", "autoattack", "label", to=label)
    assert compare(folders).left_out == (
        f"autoattack is left out: {folders[0]} has AA (standard), {folders[1]} has AA (rand)",
    )


def evaluate(folder: Path, name: str, counts: dict[str, int], total: int = 20, **changes: Any) -> None:
    """Write what ``autolora evaluate RUN`` leaves in the folder of the run."""
    content: dict[str, Any] = {
        "threat_model": "Linf 8/255",
        "scores": {metric: {"correct": count, "total": total} for metric, count in counts.items()},
        "circumstances": {"data": "56837a97" * 8, "split": "test"},
    }
    place = folder / "evaluation" / name
    place.mkdir()
    (place / "evaluation.json").write_text(json.dumps({**content, **changes}))
    lines = [["index", "label", "predicted", *counts, "apgd-ce"]]
    for index in range(total):
        right = (str(int(index < count)) for count in counts.values())
        lines.append([str(index), str(int(index >= 10)), "0", *right, "0"])
    (place / "verdicts.csv").write_text("".join(",".join(line) + "\n" for line in lines))


def test_what_was_evaluated_later_counts(runs: Runs) -> None:
    folders = [runs("a", first(12, 20)), runs("b", first(9, 20), method="at")]
    for folder, count in zip(folders, (11, 4), strict=True):
        evaluate(folder, "autoattack", {"natural": 20, "autoattack": count})
        evaluate(folder, "more", {"natural": 20, "pgd-10": 3, "pgd-20": count})  # pgd-10 is the run's own
    comparison = compare(folders)
    assert comparison.metrics == ("natural", "pgd-10", "autoattack", "pgd-20")
    assert [group.accuracies("autoattack") for group in comparison.groups] == [[11 / 20], [4 / 20]]
    assert [group.accuracies("pgd-10") for group in comparison.groups] == [[12 / 20], [9 / 20]]
    found = comparison.contrasts[0].differences["autoattack"].deciding
    assert found is not None
    assert found.p == pytest.approx(2 / 2**7)
    assert comparison.left_out == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threat_model": "Linf 4/255"}, "is under Linf 4/255, not Linf 8/255"),
        ({"circumstances": {"data": "0" * 64, "split": "test"}}, "is not on the test images of the run"),
        ({"circumstances": {"data": "56837a97" * 8, "split": "val"}}, "is not on the test images of the run"),
        ({"circumstances": None}, "is not on the test images of the run"),
        ({"total": 18}, "is on 18 images, not on the 20 of the run"),
    ],
)
def test_an_evaluation_of_something_else_does_not(runs: Runs, changes: dict[str, Any], reason: str) -> None:
    folders = [runs("a", first(12, 20)), runs("b", first(9, 20), method="at")]
    evaluate(folders[0], "autoattack", {"natural": 18, "autoattack": 11})
    evaluate(folders[1], "autoattack", {"natural": 18, "autoattack": 11}, **changes)
    comparison = compare(folders)
    assert comparison.metrics == ("natural", "pgd-10")
    assert comparison.left_out == (f"autoattack is left out: {folders[1]}/evaluation/autoattack {reason}",)


def test_evaluations_that_cannot_be_read(runs: Runs) -> None:
    folder = runs("a", first(12, 20))
    evaluate(folder, "autoattack", {"natural": 18, "autoattack": 11})
    evaluate(folder, "again", {"natural": 18, "autoattack": 10})
    with pytest.raises(
        InputError, match=r"has autoattack twice, also in .*autoattack; move one of the evaluations away"
    ):
        read_judged(folder)
    path = folder / "evaluation/again/evaluation.json"
    text = path.read_text()
    path.write_text(text.replace('"correct": 10', '"correct": 11'))
    with pytest.raises(InputError, match=r"evaluation.json counts 11 of 20 images right under autoattack, .* 10 of 20"):
        read_judged(folder)
    path.write_text(text[:-3])
    with pytest.raises(InputError, match=r"evaluation.json is damaged and cannot be read as JSON"):
        read_judged(folder)
    path.write_text(text)
    (folder / "evaluation/again/verdicts.csv").unlink()
    assert read_judged(folder).score("autoattack").correct == 11
    assert read_judged(folder).unused == {"autoattack": f"{folder}/evaluation/again has no verdicts.csv"}


# what is refused


@pytest.mark.parametrize(
    ("names", "value", "message"),
    [
        (("data", "fingerprint"), "0" * 64, "have different data (fingerprints 56837a975683 and 000000000000); only"),
        (("data", "classes"), ["ant", "fly"], "have different classes (ant, bee; ant, fly); only accuracies on the"),
        (("threat_model", "norm"), "L2", "have different threat models (Linf 8/255 and L2 8/255); a robust accuracy"),
        (("config", "method"), "autolora", "have the same configuration and the same seed, 0; a run that is done tw"),
    ],
)
def test_runs_that_cannot_be_compared(runs: Runs, names: tuple[str, ...], value: Any, message: str) -> None:
    a, b = runs("a", first(9, 20)), runs("b", first(8, 20), method="at")
    runs.change(b, *names, to=value)
    with pytest.raises(InputError) as refused:
        compare([a, b])
    assert str(refused.value).startswith(f"{a} and {b} {message}")


def test_another_radius_is_another_threat_model(runs: Runs) -> None:
    """0.031 is not 8/255; the same radius written otherwise is the same."""
    a, b = runs("a", first(9, 20)), runs("b", first(8, 20), method="at")
    runs.change(b, "threat_model", to={"norm": "Linf", "eps": "0.0313725490", "radius": 0.0313725490})
    compare([a, b])
    runs.change(b, "threat_model", to={"norm": "Linf", "eps": "0.031", "radius": 0.031})
    with pytest.raises(InputError, match=r"have different threat models \(Linf 8/255 and Linf 0.031\)"):
        compare([a, b])


def test_a_comparison_takes_two_runs(runs: Runs) -> None:
    a = runs("a", first(9, 20))
    with pytest.raises(InputError, match="no run given; a comparison takes two run folders or more"):
        compare([])
    with pytest.raises(InputError, match="1 run given; a comparison takes two"):
        compare([a])
    with pytest.raises(InputError, match="are the same run; give each run once"):
        compare([a, f"{a}/../a"])


def test_images_of_different_seeds_are_not_paired(runs: Runs) -> None:
    a = runs("a", first(9, 20), note=HELD_OUT)
    b = runs("b", first(8, 20), note=HELD_OUT, seed=1, method="at")
    why = r"a \(seed 0\) and .*b \(seed 1\) cannot be compared: "
    with pytest.raises(InputError, match=f"{why}the data came without a test split, so that the seed chose the test"):
        compare([a, b])
    for folder in (a, b):
        runs.change(folder, "data", "notes", to=[GIVEN])
    assert compare([a, b]).contrasts[0].differences["pgd-10"].images[0][0] == (0, 1)
    for folder in (a, b):
        runs.change(folder, "data", "notes", to=None)
    with pytest.raises(
        InputError, match=f"{why}.*result.json does not say whether the data came with a test split; re"
    ):
        compare([a, b])
    c = runs("c", first(8, 20), seed=2)
    with pytest.raises(
        InputError, match=r"\(seed 0, 2\) and .* cannot be compared: they have no seed in common; repeat"
    ):
        runs.change(a, "data", "notes", to=[GIVEN])
        runs.change(b, "data", "notes", to=[GIVEN])
        compare([a, c, b])


def test_the_notes_of_real_data_say_where_test_images_come_from(runs: Runs, photos: Path) -> None:
    run = runs("a", first(9, 20))
    for data, drawn in ((photos, False), (photos / "train", True)):
        splits = [load_splits(data, image_size=12, seed=seed, progress=False) for seed in (0, 1)]
        assert (splits[0].test.names != splits[1].test.names) is drawn
        runs.change(run, "data", "notes", to=list(splits[0].notes))
        assert (read_judged(run).drawn_images is not None) is drawn


def test_other_test_images_are_seen(runs: Runs) -> None:
    a, b = runs("a", first(9, 20)), runs("b", first(8, 20), method="at")
    with pytest.raises(InputError, match=r"were tested on different images \(20 and 10\)"):
        compare([a, runs("short", first(8, 10), method="at")])
    path = b / "evaluation/verdicts.csv"
    path.write_text(path.read_text().replace("\n3,0,", "\n3,1,"))
    with pytest.raises(
        InputError, match=r"\(line 5 of evaluation/verdicts.csv: index 3, label 0 and index 3, label 1\)"
    ):
        compare([a, b])


def test_a_run_without_a_result(runs: Runs, tmp_path: Path) -> None:
    a = runs("a", first(9, 20))
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"b has no result.json; give the folder of a finished run"):
        compare([a, tmp_path / "b"])
    (tmp_path / "b" / "config.yaml").touch()
    with pytest.raises(InputError, match=r"b has no result.json: the run is not finished; continue it with --resume"):
        compare([a, tmp_path / "b"])
    with pytest.raises(InputError, match=r"nowhere has no result.json"):
        compare([a, tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "result.json is damaged and cannot be read as JSON"),
        ('{"config": ', "result.json is damaged and cannot be read as JSON"),
        ("[]", "result.json has no config.method; it is not the result of a run"),
        ('{"config": 3}', "result.json has no config.method"),
        ('{"config": {"method": "at", "seed": "0"}}', "result.json has config.seed='0', which is of another kind"),
    ],
)
def test_a_broken_result(runs: Runs, text: str, message: str) -> None:
    a, b = runs("a", first(9, 20)), runs("b", first(8, 20))
    (b / "result.json").write_text(text)
    with pytest.raises(InputError) as refused:
        compare([a, b])
    assert str(refused.value).startswith(f"{b}/{message}")


def test_bytes_that_are_no_text(runs: Runs) -> None:
    for name in ("result.json", "evaluation/verdicts.csv"):
        folder = runs(name.replace("/", "-"), first(9, 20))
        (folder / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match="is damaged and cannot be read as"):
            read_judged(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("index,label", "number,label", "has no column 'index'; it has number, label, predicted, natural, pgd-10"),
        ("index,label", "index,class", "has no column 'label'"),
        ("\n2,0,0,1,1\n", "\n2,0,0,1\n", "has 4 cells in line 4, not 5"),
        ("\n2,0,0,1,1\n", "\n2,0,0,1,yes\n", "has 'yes' under pgd-10 in line 4, where 0 or 1 belongs"),
        (
            "\n2,0,0,1,1\n",
            "\n2,0,0,1,0\n",
            "result.json counts 9 of 20 images right under pgd-10, ",
        ),
    ],
)
def test_broken_verdicts(runs: Runs, old: str, new: str, message: str) -> None:
    folder = runs("a", first(9, 20))
    path = folder / "evaluation/verdicts.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as refused:
        read_judged(folder)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no column 'index'; it has none"), ("index,label,predicted,natural,pgd-10\n", "has no verdicts")],
)
def test_empty_verdicts(runs: Runs, text: str, message: str) -> None:
    folder = runs("a", first(9, 20))
    (folder / "evaluation/verdicts.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_judged(folder)
    (folder / "evaluation/verdicts.csv").unlink()
    with pytest.raises(InputError, match=r"verdicts.csv is missing"):
        read_judged(folder)


def test_a_table_that_a_spreadsheet_saved(runs: Runs) -> None:
    """Some put a byte order mark in front, and end lines otherwise."""
    folder = runs("a", first(9, 20))
    path = folder / "evaluation/verdicts.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_judged(folder).score("pgd-10").correct == 9


def test_a_score_that_is_none(runs: Runs) -> None:
    folder = runs("a", first(9, 20))
    runs.change(folder, "scores", "pgd-10", to=0.45)
    with pytest.raises(InputError, match=r"has no scores.pgd-10.correct; it is not the result"):
        read_judged(folder)


# words


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1, "p = 1"),
        (0.271, "p = 0.27"),
        (0.00031, "p = 0.00031"),
        (9e-5, "p < 0.0001"),
        (0.0497351, "p = 0.0497"),  # below the level of 0.05, which two digits would hide
        (0.049999, "p = 0.049999"),
        (0.05, "p = 0.05"),
        (0.0502, "p = 0.05"),
    ],
)
def test_p_values(p: float, text: str) -> None:
    assert p_value(p) == text


def test_points() -> None:
    assert (in_points(0.1234), in_points(0.1234, "+"), in_points(-0.02)) == ("12.3", "+12.3", "-2.0")
    assert (in_points(-0.0001), in_points(-0.0001, "+")) == ("0.0", "+0.0")
    assert interval((-0.0004, 0.5)) == "[0.0, 50.0]"
