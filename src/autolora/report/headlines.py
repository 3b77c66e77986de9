"""What a report says in sentences: the threat model, what was found under it, and why to doubt it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autolora.evaluation import Score
from autolora.experiments.conclusion import interval
from autolora.report.accuracies import main_scores
from autolora.report.collected import CollectedRun
from autolora.report.evaluations import AUTOATTACK, NATURAL, Measured
from autolora.report.wording import attack_title, number, percent
from autolora.threat import ThreatModel, format_radius


@dataclass(frozen=True)
class Doubt:
    """A reason for doubt about one accuracy.

    Args:
        about: Run and attack.
        name: Of the flag.
        text: What it means, and on how many images it was found.
    """

    about: str
    name: str
    text: str


def threat_sentence(threat: ThreatModel) -> str:
    """Say what the adversary may do, and when the adversary wins."""
    if threat.norm == "Linf":
        may = f"move each colour channel of each pixel by at most {format_radius(threat.eps)} of the pixel range"
    else:
        may = f"change an image, with pixels in [0, 1], by a Euclidean length of at most {format_radius(threat.eps)}"
    return (
        f"The adversary knows the model with all its weights, may {may} ({threat}), and wins on an image if the model "
        "then takes it for another class. An image that the model gets wrong without an attack counts as lost."
    )


def finding(run: CollectedRun) -> str:
    """Say in a sentence or two what was found out about a run."""
    if not run.finished:
        done = int(run.history[-1]["epoch"]) if run.history else 0
        return (
            f"This run is not finished: {done} of {run.epochs or '?'} epochs are done, and no test image was looked at."
        )
    scores = main_scores(run)
    natural = next((item for item in scores if item.attack == NATURAL), None)
    attacked = [item for item in scores if item.attack != NATURAL]
    if natural is None:
        return "No accuracy on natural test images is recorded."
    text = f"The model is right on {_share(natural.score)}"
    if not attacked:
        return f"{text}. It was never attacked, so nothing is known about its robustness."
    whole = [item for item in attacked if item.score.total == natural.score.total] or attacked
    last = whole[-1]
    text += f"; {percent(last.score.accuracy)} {interval(last.score.ci95)} "
    text += f"are still right under {attack_title(last.attack)}"
    text += "." if last.score.total == natural.score.total else f", tried on {last.score.total:,} of them."
    text = f"{text} {standing_of(last)}{_against_a_constant(run, last.score)}"
    if attacked[-1] is not last:
        text += f" {_sampled(attacked[-1])}"
    return text


def standing_of(item: Measured) -> str:
    """Say what the robustness under an attack is worth."""
    if item.attack == AUTOATTACK:
        label = item.label or "AutoAttack"
        return f"It may be called {label}: the worst case over four attacks, each on what the others left standing."
    return "That is an upper bound: AutoAttack as a whole may find more images that fall."


def doubts(runs: Sequence[CollectedRun]) -> list[Doubt]:
    """Return every flag that an evaluation raised."""
    found: dict[tuple[str, str], Doubt] = {}
    for run in runs:
        for item in run.measured:
            for flag in item.flags or ():
                counted = f"{number(flag.get('count', '?'))} of {number(flag.get('total', '?'))} images"
                about = f"{run.name}, {attack_title(item.attack)} {item.threat}"
                doubt = Doubt(about, str(flag.get("name", "?")), f"{counted}: {flag.get('message', '')}")
                found.setdefault((run.name, f"{doubt.name} {doubt.text}"), doubt)
    return list(found.values())


def looked_for_flags(run: CollectedRun) -> bool:
    """Whether any evaluation of a run looked for flags."""
    return any(item.flags is not None for item in run.measured)


def _against_a_constant(run: CollectedRun, attacked: Score) -> str:
    """Say that a model is not robust that a constant answer outdoes."""
    constant = run.data.get("majority")
    if not isinstance(constant, float | int) or attacked.accuracy > constant:
        return ""
    return f" Always answering the commonest class would be right on {percent(constant)}: this is not robust yet."


def _sampled(item: Measured) -> str:
    """Say what a stronger attack left of a sample."""
    found = f"{percent(item.score.accuracy)} {interval(item.score.ci95)}"
    worth = "" if item.attack == AUTOATTACK else ", an upper bound too"
    return f"A stronger attack, {attack_title(item.attack)}, left {found} of a sample of {item.score.total:,}{worth}."


def _share(score: Score) -> str:
    return f"{percent(score.accuracy)} {interval(score.ci95)} of {score.total:,} natural test images"
