"""The model card: ``README.md`` with the scores as the hub reads them, and what a reader has to know to trust them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from autolora.experiments.export.measurements import Measurement
from autolora.experiments.export.product import Product, visible

MOST_CLASSES = 100  # that the card lists; the files hold all


def model_card(product: Product, library: str, use: Sequence[str]) -> str:
    """Return the card as text.

    Args:
        product: What is exported.
        library: That reads it, as the hub calls it: ``timm``, ``onnx``, ``peft``.
        use: Lines of Markdown that show how to use the folder's files.
    """
    method = str(product.record.get("method", ""))
    data = ModelCardData(
        library_name=library,
        pipeline_tag="image-classification",
        tags=["image-classification", "adversarial-robustness", *filter(None, ["autolora", visible(method)])],
        datasets=[named] if (named := hub_dataset(str(product.record.get("data", "")))) is not None else None,
        model_name=visible(product.name),
        eval_results=[_result(product, item) for item in product.measurements] or None,
    )
    body = [*_title(product), *use, "", *_input(product), *_scores(product), *_protocol(product), *_classes(product)]
    return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *body, *LICENCE]) + "\n").content


LICENCE = (
    "## Licence",
    "",
    "Not stated. Whoever publishes this model chooses one that the licences of the pre-trained weights and of the "
    "images allow, and writes it as `license:` into the header above.",
)


NOT_ON_THE_HUB = "images"  # for the hub, which checks that the name of a data set could be one of its own

SELECTED_ON = {
    "val": ["- selected on validation images; the test images were not used for it"],
    "test": ["- **selected on the test images themselves: the scores are better than they would be on others**"],
}


def plain(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, in one line."""
    shown = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", shown)


def _result(product: Product, item: Measurement) -> EvalResult:
    """Return a score as the hub's ``model-index`` holds it."""
    data = visible(str(product.record.get("data", "unknown")))
    facts: dict[str, Any] = {"images": item.total, "correct": item.correct, "ci95": list(item.ci95)}
    if not item.is_natural:
        facts |= {"attack": visible(item.attack), "label": visible(item.label), "norm": item.norm, "eps": item.eps}
        facts |= {"upper_bound": item.is_upper_bound, "flags": [str(doubt["name"]) for doubt in item.flags]}
    return EvalResult(
        task_type="image-classification",
        task_name="Image classification",
        dataset_type=hub_dataset(data) or NOT_ON_THE_HUB,
        dataset_name=data,
        dataset_split="test",
        metric_type="accuracy",
        metric_value=item.accuracy,
        metric_name=_name(item),
        metric_args=facts,
    )


def _name(item: Measurement) -> str:
    """Return what was measured in words, and whether a stronger attack may find more."""
    if item.is_natural:
        return "Natural accuracy"
    label = re.sub("^pgd-", "PGD-", visible(item.label))
    bound = ", an upper bound" if item.is_upper_bound and "upper bound" not in label else ""
    return f"Robust accuracy, {label}, {item.threat}{bound}"


def hub_dataset(data: str) -> str | None:
    """Return ORG/NAME of data of the hub, without the options behind it; None of other data."""
    return data.removeprefix("hf:").partition(",")[0] if data.startswith("hf:") else None


def _title(product: Product) -> list[str]:
    architecture = product.model.architecture
    natural = _part(product.record, "selection").get("score") == "val_natural"  # a method that attacks nothing
    how = "selected for its natural accuracy, and measured under" if natural else "trained against"
    threat = f", {how} {plain(product.threat_model)}" if product.threat_model else ""
    return [
        f"# {plain(product.name)}",
        "",
        f"An image classifier of {product.model.head.out_features} classes, {plain(architecture.name)}{threat}.",
        "",
        "## Use",
        "",
    ]


def _input(product: Product) -> list[str]:
    """Say what images the model was shown."""
    architecture = product.model.architecture
    channels, height, width = architecture.input_size
    enlarged = ""
    if architecture.upsampling is not None:
        side = architecture.upsampling.to
        enlarged = f" and enlarges them to {side}x{side} for its network ({architecture.upsampling.mode})"
    lines = [
        "## Input",
        "",
        f"RGB images (N, {channels}, {height}, {width}) in [0, 1]. The model normalises them itself{enlarged}; radii "
        "are in the same units.",
    ]
    if product.is_ours:
        lines.append(
            f"In evaluation, the shorter side was brought to {product.shorter_side} pixels (bilinear, "
            f"antialiased), and the central {height}x{width} cut out."
        )
    return [*lines, ""]


def _scores(product: Product) -> list[str]:
    """Return the table of scores, with everything that takes away from them."""
    if not product.measurements:
        return ["## Scores", "", "None are recorded: nothing is known about how robust this model is.", ""]
    rows = [
        f"| {plain(_name(item))} | {item.accuracy:.1%} | [{100 * item.ci95[0]:.1f}, {100 * item.ci95[1]:.1f}] | "
        f"{item.correct} of {item.total} | {plain(', '.join(str(doubt['name']) for doubt in item.flags)) or 'none'} |"
        for item in product.measurements
    ]
    return [
        "## Scores",
        "",
        "| on test images | accuracy | 95 % interval | images | doubts |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "An image that is wrong without an attack counts as wrong under every attack. A robust accuracy is what these "
        "attacks left standing, and no proof: an upper bound is called one, and another attack may break more.",
        "",
        *_doubts(product.measurements),
    ]


def _doubts(measurements: Iterable[Measurement]) -> list[str]:
    """Return what each doubt means, once."""
    found = {str(doubt["name"]): str(doubt["message"]) for item in measurements for doubt in item.flags}
    lines = [f"- {plain(name)}: {plain(message)}" for name, message in found.items()]
    return [*lines, ""] if lines else []


def _protocol(product: Product) -> list[str]:
    """Say how the model came about, as far as its record tells."""
    record = product.record
    images, started, made = (_part(record, name) for name in ("images", "started_from", "environment"))
    selection, names = _part(record, "selection"), {"version": "autolora"}
    facts = {
        "method": record.get("method"),
        "threat model": record.get("threat_model"),
        "data": record.get("data"),
        "images": ", ".join(f"{count} {split}" for split, count in images.items()),
        "commonest class of the test images": _percent(record.get("majority")),
        "started from": ", weights ".join(str(started[name]) for name in ("model", "weights") if name in started),
        "epoch": f"{selection['epoch']} of {record.get('epochs_run')}" if "epoch" in selection else None,
        "seed": record.get("seed"),
        "made by": ", ".join(f"{names.get(name, name)} {value}" for name, value in made.items() if value),
    }
    lines = [f"- {name}: {plain(str(value))}" for name, value in facts.items() if value not in (None, "")]
    lines += SELECTED_ON.get(str(record.get("selected_on")), [])
    return ["## Protocol", "", *lines, ""] if lines else []


def _classes(product: Product) -> list[str]:
    """List the classes in a fence: quoted, so that no name can end it."""
    if not product.classes:
        return []
    shown = [f'{index}: "{visible(name)}"' for index, name in enumerate(product.classes[:MOST_CLASSES])]
    more = len(product.classes) - len(shown)
    return ["## Classes", "", "```text", *shown, *([f"and {more} more"] if more else []), "```", ""]


def _part(record: Any, name: str) -> dict[str, Any]:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _percent(share: Any) -> str | None:
    return f"{share:.1%}" if isinstance(share, float) else None
