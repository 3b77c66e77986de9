"""Every command on the page is one that the command line takes."""

from __future__ import annotations

import shlex
from fractions import Fraction
from pathlib import Path

import pytest
from jsonargparse import Namespace

from autolora.cli import _parse
from autolora.report.collected import collect
from autolora.report.commands import repeat
from autolora.report.hints import hints
from autolora.report.wording import attack_title, plain, shortened

from .folders import write_evaluation, write_run


def options(command: str) -> Namespace:
    program, *argv = shlex.split(command)
    assert program == "autolora"
    parsed = _parse(argv)
    assert isinstance(parsed, Namespace), command
    return parsed[argv[0]]


def test_hints_are_commands(tmp_path: Path) -> None:
    unfinished = write_run(tmp_path / "un finished")
    (unfinished / "result.json").unlink()
    runs = collect([write_run(tmp_path / "it's"), unfinished])
    found = {section: [line for hint in each for line in hint.commands] for section, each in hints(runs).items()}
    assert {section: len(each) for section, each in found.items()} == {
        "scores": 2,
        "training": 1,
        "radii": 1,
        "corruptions": 1,
    }
    resumed, attacked = map(options, found["scores"])
    assert resumed.resume and resumed.out == str(unfinished)
    assert attacked.model == str(tmp_path / "it's") and not attacked.attack
    curve = options(found["radii"][0])
    assert curve.eps == ["8/255", "2/255", "4/255", "16/255"]
    assert options(found["corruptions"][0]).corruptions
    assert options(found["training"][0]).gradient_similarity == 5


def test_a_curve_of_another_radius(tmp_path: Path) -> None:
    threat = {"norm": "L2", "eps": "0.3", "radius": 0.3}
    runs = collect([write_run(tmp_path / "a", threat_model=threat, config={"eps": "0.3", "norm": "L2"})])
    (line,) = (line for hint in hints(runs)["radii"] for line in hint.commands)
    assert [float(Fraction(eps)) for eps in options(line).eps] == pytest.approx([0.3, 0.075, 0.15, 0.6])


def test_evaluations_are_repeated_as_they_were(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    shards = write_evaluation(folder, "few", {"natural": 9, "pgd-20x5": 3}, total=12, label="pgd-20x5") / "shards/x"
    shards.mkdir(parents=True)
    (shards / "manifest.json").write_text('{"seed": 7}')
    score = {"accuracy": 0.5, "correct": 30, "total": 60}
    curve = [{"eps": eps, "scores": {"natural": score, "autoattack": score}} for eps in ("4/255", "2/255")]
    label = "AA (standard), by the reference package x 1"
    corruptions = {"mean_accuracy": 0.5, "total": 60, "types": {}}
    write_evaluation(
        folder,
        "much",
        {"natural": 48, "autoattack": 30},
        threat="Linf 4/255",
        label=label,
        curve=curve,
        corruptions=corruptions,
    )
    (run,) = collect([folder])
    again, few, much = map(options, repeat(run))
    assert again.data == "photos/" and again.out == few.model == much.model == f"{folder}-again"
    assert (few.attack, few.restarts, few.limit, few.seed, few.eps) == (["pgd-20"], 5, 12, 7, ["8/255"])
    assert (much.attack, much.engine, much.limit, much.eps) == (["autoattack"], "reference", None, ["4/255", "2/255"])
    assert much.corruptions and not few.corruptions and much.norm == "Linf"
    assert few.out == f"{folder}-again/evaluation/few"


def test_names_can_stand_in_a_page() -> None:
    assert plain("a\u202eb\x00\ud800\ufffe\n") == "a\\u202eb\\x00\\ud800\\ufffe\n"
    assert plain("naïve été 青蛙 👩‍🔬") == "naïve été 青蛙 👩‍🔬"
    assert shortened("a\nb  c") == "a b c"
    assert shortened("x" * 20) == "x" * 20
    assert shortened("start" + "x" * 50 + "end", 12) == "startxx…xend"


def test_attacks_have_titles() -> None:
    assert attack_title("pgd-20x5") == "PGD-20, 5 starts (RA)"
    assert attack_title("pgd-20") == "PGD-20 (RA)" and attack_title("mine") == "mine"
