"""What the terminal shows when a run is done: one table and the next command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join, quote
from typing import Any

from autolora.experiments.result import RunResult

NAMES = {"natural": "natural (SA)", "pgd-10": "under PGD-10 (RA)", "autoattack-fast": "under AA-fast"}

SELECTED_ON = {
    "val": "the test images were not used for it",
    "test": "they are the test images too, so that the scores are better than they would be on others",
}

WORSE = (
    "Under attack it is right no more often than one that always answers the commonest class: not robust yet. What\n"
    "can help: another first rate (--lr, ten times as much where batches of 64 or more are few), a robust backbone\n"
    "made for images of this size (--model, --weights), more images, a weaker adversary (--eps). `autolora doctor`\n"
    "says whether something is wrong with the data or eps."
)


def print_result(result: RunResult, then: str = "") -> None:
    """Print the test scores of one run, and the command to type next, in which ``{folder}`` is the run's."""
    content = result.content
    total = result.scores["natural"]["total"]
    print(f"\nTest accuracy on {total} images, {_threat(content)}, with 95 % intervals:\n")
    constant = f"{content['data']['majority']:6.1%}  under any attack"
    rows = [(NAMES.get(name, name), _percent(score)) for name, score in result.scores.items()]
    print(_rows([*rows, ("always the commonest class", constant)]))
    selection = content["selection"]
    print(
        f"\nEpoch {selection['epoch']} of {content['epochs_run']} was selected on {content['data']['val']} validation "
        f"images (standard error {100 * selection['standard_error']:.1f} points); "
        f"{SELECTED_ON[content.get('selected_on', 'val')]}.\n"
    )
    if (attacked := [score["accuracy"] for name, score in result.scores.items() if name != "natural"]) and (
        min(attacked) <= content["data"]["majority"]
    ):
        print(f"{WORSE}\n")
    _print_next(result, then)


def print_comparison(robust: RunResult, control: RunResult, report: Path) -> None:
    """Print two runs beside each other, robust and natural fine-tuning, and where the report of both lies."""
    total = robust.scores["natural"]["total"]
    print(f"\nTest accuracy on {total} images, {_threat(robust.content)}, with 95 % intervals:\n")
    header = ("", *(NAMES.get(name, name) for name in robust.scores))
    rows = [
        (title, *(_percent(run.scores[name]) for name in robust.scores))
        for title, run in (("natural fine-tuning", control), ("AutoLoRa", robust))
    ]
    print(_rows([header, *rows]))
    print(
        "\nBoth started from the same robust backbone and saw the same images; the attack may change each pixel by at "
        f"most\n{robust.content['threat_model']['eps']}. PGD-10 is an upper bound of robustness: a stronger attack may "
        "find more."
    )
    if (fast := robust.scores.get("autoattack-fast")) is not None:
        print(
            f"AA-fast is the first two attacks of AutoAttack, here on a sample of {fast['total']} images: an upper "
            "bound too, and a closer one."
        )
    print(f"\ntook       {robust.content['seconds'] + control.content['seconds']:.0f} s")
    print(f"report     {report}  (open it in a browser)")
    _print_next(robust, "autolora fit PHOTOS   # a folder with one folder of images per class")


def print_evaluation(folder: Path, content: Mapping[str, Any]) -> None:
    """Print what an evaluation found: accuracies with intervals, what they may be called, and every doubt."""
    print(f"\nAccuracy on {content['images']} images, threat model {content['threat_model']}, with 95 % intervals:\n")
    scores = content["scores"]
    print(_rows([(_title(name, score), _percent(score)) for name, score in scores.items()]))
    for name, score in scores.items():
        if "after" in score:
            steps = ", ".join(f"{part} {share:.1%}" for part, share in score["after"].items())
            print(f"\n{name} left standing after {steps}")
    for doubt in {str(doubt): doubt for score in scores.values() for doubt in score.get("flags", [])}.values():
        print(f"\ndoubt: {doubt['name']} on {doubt['count']} of {doubt['total']} images: {doubt['message']}")
    for point in content.get("curve", [])[1:]:
        print(f"\neps {point['eps']}\n")
        print(_rows([(_title(name, score), _percent(score)) for name, score in point["scores"].items()]))
    if "corruptions" in content:
        found = content["corruptions"]
        worst, score = min(found["types"].items(), key=lambda item: item[1]["mean_accuracy"])
        mean, lowest = found["mean_accuracy"], score["mean_accuracy"]
        print(f"\nunder 15 common corruptions {mean:.1%} on average, {lowest:.1%} under the worst, {worst}")
    print(f"\nfolder     {folder}: evaluation.json, verdicts.csv")


def print_next(words: Sequence[str], why: str) -> None:
    """Print the command to type next, and what for."""
    print(f"next       {join(words)}   # {why}")


def _title(name: str, score: Mapping[str, Any]) -> str:
    label = score.get("label", name)
    if label != name:  # it says more than the name: which version, whose, and that it is an upper bound
        return f"under {label}"
    return NAMES.get(name) or (f"under {name}" if "label" in score else name)


def _print_next(result: RunResult, then: str) -> None:
    print(f"run folder {result.folder}")
    print(f'use it     model = autolora.load("{result.folder}")  # images in [0, 1] to logits')
    if then:
        print(f"next       {then.format(folder=quote(str(result.folder)))}")


def _threat(content: Mapping[str, Any]) -> str:
    threat = content["threat_model"]
    return f"threat model {threat['norm']} with eps {threat['eps']}"


def _percent(score: Mapping[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{score['accuracy']:6.1%}  [{100 * low:.1f}, {100 * high:.1f}]"


def _rows(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    cells = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {'   '.join(row)}".rstrip() for row in cells)
