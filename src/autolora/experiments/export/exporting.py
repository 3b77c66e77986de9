"""From a run to a folder for timm, ONNX Runtime, PEFT or RobustBench: written whole or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.export import usage
from autolora.experiments.export.card import model_card
from autolora.experiments.export.hub import check_upload, upload
from autolora.experiments.export.onnx_file import check_packages, write_onnx
from autolora.experiments.export.peft_folder import adapter_folder, write_peft
from autolora.experiments.export.product import Product, find_product
from autolora.experiments.export.robustbench_files import lacks, write_robustbench
from autolora.experiments.export.timm_folder import write_timm
from autolora.experiments.progress import steps
from autolora.experiments.result import write_atomically
from autolora.paths import expanded

logger = logging.getLogger(__name__)

CARD = "README.md"


@dataclass(frozen=True)
class Format:
    """One kind of export.

    Args:
        library: What reads it, as the hub calls it.
        write: Writes the files into a folder.
        use: Lines of the card that show how to use them.
        lacks: Says what the user has still to do.
    """

    library: str
    write: Callable[[Product, Path], None]
    use: Callable[[Product], list[str]]
    lacks: Callable[[Product], list[str]] = lambda product: []


FORMATS = {
    "timm": Format("timm", write_timm, usage.of_timm),
    "onnx": Format("onnx", write_onnx, usage.of_onnx),
    "peft": Format("peft", write_peft, usage.of_peft),
    "robustbench": Format("timm", write_robustbench, usage.of_robustbench, lacks),
}


def export(
    source: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    push_to_hub: str | None = None,
    private: bool = False,
    progress: bool = False,
) -> Path:
    """Write a finished model as another tool reads it, and return the folder.

    Args:
        source: A run folder, or a folder with a model in timm's format.
        format: ``timm``, ``onnx``, ``peft`` or ``robustbench``.
        out: A new or empty folder; None takes ``exports/NAME-FORMAT``.
        push_to_hub: ``ORG/NAME`` of a repository on Hugging Face's hub to upload the folder to; made if need be.
        private: Make the repository a private one.
        progress: Show which step is under way.

    Raises:
        InputError: If there is no finished model, it has no such form, an extra is missing, the folder is in use, or
            the hub is out of reach. Nothing is left behind then, unless the hub refuses what has been written.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is unknown{suggestion(format, FORMATS)}")
    if format == "onnx":
        check_packages()
    with steps(3, shown=progress) as begin:
        begin("reading the model")
        product = find_product(source)
        if format == "peft":
            adapter_folder(product)
        folder = expanded(out) if out is not None else Path("exports") / f"{product.name}-{format}"
        _check_folder(folder)
        if push_to_hub is not None:
            check_upload(push_to_hub)
        kind = FORMATS[format]
        with _whole(folder) as new:
            begin(f"writing {format}, and comparing")
            kind.write(product, new)
            begin("writing the card")
            write_atomically(new / CARD, model_card(product, kind.library, kind.use(product)))
    for reason in kind.lacks(product):
        logger.info(reason)
    if push_to_hub is not None:
        logger.info(f"{folder} is written; uploading it to {push_to_hub}")
        upload(folder, push_to_hub, private=private)
    return folder


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={folder} is a file; name a folder that is new or empty")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"out={folder} is not empty; name a folder that is new or empty with --out")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes its name when it is whole, and vanishes if it never is."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of an export that was killed
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rmdir()
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
