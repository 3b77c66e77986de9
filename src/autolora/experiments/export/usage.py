"""How to use what was exported, as the card shows it: every way gives the normalisation with the model."""

from __future__ import annotations

from autolora.experiments.export.onnx_file import FILE, INPUT, OUTPUT
from autolora.experiments.export.product import Product
from autolora.experiments.export.robust_model import ARCHITECTURE, BACKBONE
from autolora.experiments.export.robustbench_files import CLAIM, ISSUE
from autolora.experiments.export.timm_folder import foreign_source


def of_timm(product: Product) -> list[str]:
    """Return how to use the ``timm`` format, in a folder that is the working directory."""
    return [
        *_wrapped(product),
        "",
        *_of_photos(product),
        "",
        "```python",
        "import timm",
        "import torch",
        "from PIL import Image",
        *_registering(product),
        "",
        'model = timm.create_model("local-dir:.", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))  # also normalises",
        'image = transform(Image.open("photo.jpg").convert("RGB"))',
        "with torch.no_grad():",
        "    logits = model(image.unsqueeze(0))",
        "```",
        "",
        *_foreign(product),
    ]


def of_robustbench(product: Product) -> list[str]:
    """Return how to use the ``robustbench`` format, in a folder that is the working directory."""
    return [
        *_wrapped(product),
        "",
        "That model keeps RobustBench's contract, so `robustbench.benchmark(model, ...)` takes it. To submit it, "
        f"complete `{CLAIM}`, which is empty where only its authors know, and paste `{ISSUE}` into an issue.",
        "",
        *_foreign(product),
    ]


def of_onnx(product: Product) -> list[str]:
    """Return how to use the ``onnx`` format, in a folder that is the working directory."""
    channels, height, width = product.model.architecture.input_size
    return [
        "```python",
        "import json",
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{FILE}", providers=["CPUExecutionProvider"])',
        f"images = np.zeros((4, {channels}, {height}, {width}), dtype=np.float32)  # any number of them, in [0, 1]",
        f'(logits,) = session.run(["{OUTPUT}"], {{"{INPUT}": images}})  # the graph normalises them',
        'names = json.loads(session.get_modelmeta().custom_metadata_map["label_names"])',
        "```",
        "",
        "ONNX Runtime gave the logits of the model when the file was written.",
    ]


def of_peft(product: Product) -> list[str]:
    """Return how to use the ``peft`` format, in a folder that is the working directory."""
    return [
        *_wrapped(product),
        "",
        f"In PEFT, the model takes images that are normalised {_and_enlarged(product)}as its backbone says:",
        "",
        "```python",
        "import peft",
        "import timm",
        "import torch",
        *_registering(product),
        *(["import torch.nn.functional as F"] if product.model.architecture.upsampling is not None else []),
        "",
        f'backbone = timm.create_model("local-dir:{BACKBONE}", pretrained=True)',
        'mean, std = (torch.tensor(backbone.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))',
        'model = peft.PeftModel.from_pretrained(backbone, ".").eval()',
        f"images = torch.rand(4, {', '.join(map(str, product.model.architecture.input_size))})  # in [0, 1]",
        "with torch.no_grad():",
        f"    logits = model({_enlarged(product, '(images - mean) / std')})",
        "```",
        "",
        "The adapter brings its own head and batch norms; those of the backbone folder are not used then.",
        *_foreign(product, f"{BACKBONE}/"),
    ]


def _of_photos(product: Product) -> list[str]:
    """Say what timm's own model is for."""
    if product.model.architecture.upsampling is None:
        return ["For photos, timm's own model with the transform that goes with it:"]
    _, height, width = product.model.architecture.input_size
    return [
        f"timm has no form for a model that enlarges its images. Its own model is the network behind that, and its "
        f"transform enlarges in the model's place. So it takes images that are {height}x{width} already; an attack on "
        "it would act on the enlarged image, which is another threat model:",
    ]


def _and_enlarged(product: Product) -> str:
    return "" if product.model.architecture.upsampling is None else "and enlarged "


def _enlarged(product: Product, x: str) -> str:
    """Return the code that enlarges ``x`` as the model does."""
    upsampling = product.model.architecture.upsampling
    if upsampling is None:
        return x
    return f'F.interpolate({x}, size=({upsampling.to}, {upsampling.to}), mode="{upsampling.mode}")'


def _wrapped(product: Product) -> list[str]:
    size = ", ".join(map(str, product.model.architecture.input_size))
    return [
        "In this folder:",
        "",
        "```python",
        "import torch",
        "from robust_model import load_model",
        "",
        "model = load_model()  # images in [0, 1] to logits, in evaluation mode; model.classes are their names",
        f"images = torch.rand(4, {size})",
        "with torch.no_grad():",
        "    logits = model(images)",
        "```",
    ]


def _registering(product: Product) -> list[str]:
    if foreign_source(product.model.architecture.name) is None:
        return []
    return ["import robust_model  # registers the architecture with timm"]


def _foreign(product: Product, folder: str = "") -> list[str]:
    """Say where the code of the architecture lies, if timm does not have it."""
    if foreign_source(product.model.architecture.name) is None:
        return []
    return [f"timm does not have this architecture; its code is in `{folder}{ARCHITECTURE}`."]
