"""What RobustBench asks of a submission: the claim as ``model_info`` JSON, the text of the issue, and the model.

Fields and kinds are those of the files in its ``model_info/``: accuracies are percentages in text, with two digits. The
model is to give logits for images in [0, 1], to be deterministic, and to have gradients; ``robust_model.py`` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autolora.experiments.export.card import plain
from autolora.experiments.export.measurements import AUTOATTACK, NATURAL, Measurement
from autolora.experiments.export.product import Product, visible
from autolora.experiments.export.timm_folder import write_timm
from autolora.experiments.result import write_atomically, write_json

CLAIM, ISSUE = "model_info.json", "new_model.md"
DATASETS = ("cifar10", "cifar100", "imagenet")  # that its leaderboards are about


def write_robustbench(product: Product, folder: Path) -> None:
    """Write the model in timm's format, its wrapper, the claim and the issue."""
    write_timm(product, folder)
    write_json(folder / CLAIM, claim(product))
    write_atomically(folder / ISSUE, _issue(product))


def claim(product: Product) -> dict[str, Any]:
    """Return the ``model_info`` of a model.

    What nobody but the authors can know is left empty. ``autoattack_acc`` is filled in by nothing but AutoAttack as
    published, on all test images, at the model's own threat model.
    """
    robust = standard(product)
    natural = product.find(NATURAL)
    content: dict[str, Any] = {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": _started_from_weights(product),
        "number_forward_passes": 1,
        "dataset": visible(str(product.record.get("data", ""))),
        "venue": "",
        "architecture": product.model.architecture.name,
        "eps": product.threat_model.partition(" ")[2],
        "clean_acc": _percent(natural),
        "reported": _percent(robust),
        "autoattack_acc": _percent(robust),
        "unreliable": bool(robust is not None and robust.flags),
    }
    if (note := _instead(product)) is not None:
        content["footnote"] = note
    return content


def standard(product: Product) -> Measurement | None:
    """Return AutoAttack as published on all test images, if that was measured; the lowest, if more than once."""
    natural = product.find(NATURAL)
    if natural is None:
        return None
    found = [
        item
        for item in product.measurements
        if item.is_standard and item.threat == product.threat_model and item.total == natural.total
    ]
    return min(found, key=lambda item: item.accuracy, default=None)


def lacks(product: Product) -> list[str]:
    """Say what keeps the claim from being one for the leaderboard, a sentence each."""
    data = visible(str(product.record.get("data", "unknown data")))
    reasons = []
    if data not in DATASETS:
        reasons.append(f"RobustBench has leaderboards for {', '.join(DATASETS)}, and none for {data}")
    if (note := _instead(product)) is not None:
        reasons.append(f"autoattack_acc is left empty: {note}")
    return reasons


def _instead(product: Product) -> str | None:
    """Say what was measured where AutoAttack as published was not."""
    if standard(product) is not None:
        return None
    measured = [product.find(attack) for attack in (AUTOATTACK, "autoattack-fast", "pgd-10")]
    strongest = next((item for item in measured if item is not None), None)
    if strongest is None:
        return "no robust accuracy was measured"
    bound = ", an upper bound" if strongest.is_upper_bound else ""
    return (
        f"AutoAttack (standard) was not run on all test images; robust accuracy {_percent(strongest)} % under "
        f"{strongest.label} on {strongest.total} images{bound}"
    )


def _started_from_weights(product: Product) -> bool:
    """Whether training began with weights, which other images have gone into."""
    started: Any = product.record.get("started_from")
    return not isinstance(started, dict) or started.get("weights") != "none"


def _percent(score: Measurement | None) -> str | None:
    return None if score is None else f"{100 * score.accuracy:.2f}"


def _issue(product: Product) -> str:
    """Return the text of RobustBench's "New Model(s)" issue, as far as it is known."""
    content = claim(product)
    rows = {
        "Architecture": content["architecture"],
        "Threat Model": product.threat_model.partition(" ")[0],
        "eps": content["eps"],
        "Clean accuracy": content["clean_acc"],
        "Robust accuracy": content["autoattack_acc"],
        "Additional data": str(content["additional_data"]).lower(),
        "Evaluation method": (robust.label if (robust := standard(product)) is not None else None),
        "Checkpoint and code": None,
    }
    lines = ["# Paper Information", ""]
    lines += [f"- **{name}**:" for name in ("Paper Title", "Paper URL", "Paper authors")]
    lines += ["", "# Leaderboard Claim(s)", "", "## Model 1", ""]
    lines += [f"- **{name}**: {plain(str(value or ''))}".rstrip() for name, value in rows.items()]
    lines += ["", "# Model Zoo:", "", "- [ ] I want to add my models to the Model Zoo"]
    return "\n".join(lines) + "\n"
