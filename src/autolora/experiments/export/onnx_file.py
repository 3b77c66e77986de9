"""``model.onnx``: images in [0, 1] to logits for any runtime, with the normalisation inside the graph."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autolora.errors import InputError
from autolora.experiments.export.product import Product

FILE = "model.onnx"
INPUT, OUTPUT = "images", "logits"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # of the extra [onnx]
BATCHES = (1, 3, 17)  # sizes at which the file is compared with the model; some kernels are others from 16 on
TOLERANCE = 1e-5  # largest difference, relative to the largest logit of the batch
LARGEST = 2**31 - 2**24  # bytes of weights that fit into one file, whose format ends at 2 GiB


def check_packages() -> None:
    """Refuse at once where the extra is absent.

    Raises:
        InputError: If a package is.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--format onnx needs {', '.join(missing)}; install the extra with: pip install '.[onnx]' in a "
            "clone, or uv sync --extra onnx"
        )


def write_onnx(product: Product, folder: Path) -> None:
    """Write the graph, and compare what ONNX Runtime makes of it with the model.

    Raises:
        InputError: If the exporter has no form for a layer, or the logits differ.
    """
    try:
        _write(product, folder / FILE)
    except RuntimeError as error:  # of torch's exporter, and of the package that it writes with
        cause: BaseException = error
        while cause.__cause__ is not None:  # above the first cause stand reports of many lines
            cause = cause.__cause__
        name, reason = product.model.architecture.name, (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise InputError(
            f"torch {torch.__version__} cannot write {name} as ONNX ({reason}); try a newer torch, or --format timm"
        ) from None
    _compare(product, folder / FILE)


def _write(product: Product, path: Path) -> None:
    model = product.model
    program = torch.onnx.export(
        model,
        (torch.zeros(2, *model.architecture.input_size),),  # the shape counts
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(_facts(product))
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    program.save(path, external_data=size > LARGEST)


def _facts(product: Product) -> dict[str, str]:
    """Return what goes into the file: names of the classes, and the circumstances, each as JSON or plain text."""
    channels, height, width = product.model.architecture.input_size
    return {
        "input": f"{INPUT}: float32 (N, {channels}, {height}, {width}), RGB, in [0, 1]; the graph normalises them",
        "output": f"{OUTPUT}: float32 (N, {product.model.head.out_features})",
        "label_names": json.dumps(list(product.classes)),
        "threat_model": product.threat_model,
        "autolora": json.dumps(dict(product.record)),
    }


def _compare(product: Product, path: Path) -> None:
    """Refuse a file whose logits are not the model's."""
    session, generator = _session(path), torch.Generator().manual_seed(0)
    for images in BATCHES:
        x = torch.rand(images, *product.model.architecture.input_size, generator=generator)
        with torch.no_grad():
            expected = product.model(x)
        (found,) = session.run([OUTPUT], {INPUT: x.numpy()})
        if (difference := _difference(torch.from_numpy(found), expected)) > TOLERANCE:
            raise InputError(
                f"ONNX Runtime gives other logits for {product.model.architecture.name} than torch (they differ by "
                f"{difference:.1e} of the largest on {images} images, {TOLERANCE:.0e} is allowed); use --format timm"
            )


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest logit; infinite if a value is not finite or the shape is another."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
