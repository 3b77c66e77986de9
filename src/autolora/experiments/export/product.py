"""What is exported: a finished model with its classes, circumstances and scores, as its folder tells of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolora.errors import InputError
from autolora.experiments.config import RunConfig, config_from
from autolora.experiments.export.measurements import Measurement, measured
from autolora.experiments.image_sides import SHORTER_SIDE, shorter_side
from autolora.experiments.judged import EVALUATION, EVALUATIONS, REQUIRED, stranger
from autolora.experiments.judged_files import read_json, read_result, require
from autolora.experiments.result import CONFIG, RESULT
from autolora.experiments.selection import selected_on
from autolora.experiments.subject import model_fingerprint
from autolora.models import RobustModel
from autolora.models.bundle import bundle_classes, bundle_record, load_bundle

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
PUBLIC = ("hf", "hf-hub", "hf_hub", "salman2020", "torchvision")  # what stands behind these is a name, and no path


@dataclass(frozen=True)
class Product:
    """A finished model, and what is known about it.

    Args:
        source: The run folder, or the folder with a model in timm's format.
        model: Images in [0, 1] to logits, in evaluation mode, on the CPU, without branches.
        classes: Class names, in the order of the logits; empty if the folder names none.
        record: Circumstances for JSON: threat model, method, data, protocol, scores. No path of this machine is in it.
        measurements: The scores, with those of later evaluations.
        config: The run's options; None if the model is of no run.
        shorter_side: To how many pixels the shorter side of its images is brought before the centre is cut out.
    """

    source: Path
    model: RobustModel
    classes: tuple[str, ...]
    record: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    config: RunConfig | None
    shorter_side: int

    @property
    def name(self) -> str:
        """What to call it: its folder's name, or the run's if that is the run's ``model/``."""
        folder = self.source.resolve()
        inside = folder.name == "model" and (folder.parent / RESULT).is_file()
        return (folder.parent if inside else folder).name or "model"

    @property
    def is_ours(self) -> bool:
        """Whether this package trained it, and so knows what images it was shown."""
        return "method" in self.record

    @property
    def threat_model(self) -> str:
        """The threat model it was trained for, such as ``"Linf 8/255"``; empty if unknown."""
        return str(self.record.get("threat_model", ""))

    def find(self, attack: str) -> Measurement | None:
        """Return the score of an attack under the model's own threat model, on the most images, if there is one."""
        found = [item for item in self.measurements if item.attack == attack and item.threat in ("", self.threat_model)]
        return max(found, key=lambda item: item.total, default=None)


def find_product(folder: str | Path) -> Product:
    """Read a finished run, or a folder with a model in timm's format.

    Raises:
        InputError: If it is neither, or its files are not what a run writes.
    """
    folder = Path(folder)
    if (folder / RESULT).is_file() or (folder / CONFIG).is_file():
        return _of_run(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no run and no model in it; give the folder of a finished run, or its model/")
    record = bundle_record(folder)
    if "data" in record:
        record = {**record, "data": public_name(str(record["data"]))}
    return _product(folder, folder, record, None)


def _of_run(folder: Path) -> Product:
    content = read_result(folder)
    for names, kind in (*REQUIRED, *((("data", split), int) for split in SPLITS)):
        require(content, folder / RESULT, names, kind)
    config = config_from(content["config"])
    threat, data = content["threat_model"], content["data"]
    record = {
        "threat_model": f"{threat['norm']} {threat['eps']}",
        "method": config.method,
        "data": public_name(config.data),
        "images": {split: data[split] for split in SPLITS},
        "majority": data.get("majority"),
        "fingerprint": data["fingerprint"],
        "started_from": {"model": public_name(config.model), "weights": public_name(config.weights)},
        "seed": config.seed,
        "selected_on": selected_on(data.get("notes") or (), str(content.get("selected_on", ""))),
        "selection": content.get("selection"),
        "epochs_run": content.get("epochs_run"),
        "environment": {name: content.get("environment", {}).get(name) for name in ("version", "commit", "torch")},
        "scores": content["scores"],
    }
    return _product(folder, folder / "model", record, config)


def _product(source: Path, model_folder: Path, record: Mapping[str, Any], config: RunConfig | None) -> Product:
    model = load_bundle(model_folder)
    shorter = shorter_side(model_folder, model.architecture.input_size[-1])
    if config is not None:
        record = {**record, SHORTER_SIDE: shorter, "evaluations": _evaluations(source, model, record)}
    try:
        scores = measured(str(record.get("threat_model", "")), record.get("scores", {}), record.get("evaluations", ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{source}: its scores are not as they were written ({error!r}); evaluate again") from None
    return Product(source, model, tuple(bundle_classes(model_folder)), record, scores, config, shorter)


def _evaluations(run: Path, model: RobustModel, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the later evaluations of this very model on its test images; of the others, say why they are left out."""
    fingerprint, size = model_fingerprint(model), model.architecture.input_size[-1]
    found = []
    for path in sorted((run / EVALUATIONS).glob(f"*/{EVALUATION}")):
        content = read_json(path)
        for names, kind in ((("scores",), dict), (("threat_model",), str), (("circumstances",), dict)):
            require(content, path, names, kind)
        about = content["circumstances"]
        if about.get("model") != fingerprint:
            logger.warning(f"{path} is not in the export: it is about another model")
        elif (about.get("data"), about.get("split")) != (record["fingerprint"], "test"):
            logger.warning(f"{path} is not in the export: it is not on the test images of the run")
        elif (reason := stranger(about, record["fingerprint"], size)) is not None:
            logger.warning(f"{path} is not in the export: it {reason}")
        else:
            found.append({key: content[key] for key in ("threat_model", "images", "scores", "curve") if key in content})
    return found


def public_name(text: str) -> str:
    """Return a name without the path of this machine: the last part of a path, a hub's name as it is."""
    scheme, colon, place = text.partition(":")
    if colon and scheme in PUBLIC:
        return text
    return Path((place if scheme == "local-dir" else text).partition("?")[0]).name or text


def visible(text: str) -> str:
    """Return a text in one line: characters that cannot be seen, or turn the line around, as their escapes."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
