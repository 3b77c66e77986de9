"""The classifier in this folder: images in [0, 1] to logits, with the normalisation inside. Needs torch and timm alone.

What enlarges small images for the network, where the model has it, is inside as well.

.. code-block:: python

    from robust_model import load_model

    model = load_model()  # images (N, C, H, W) in [0, 1] to logits (N, K), in evaluation mode

This is what RobustBench and AutoAttack expect of a model. The file belongs to autolora (Apache-2.0), which writes it
beside the weights as it is; all that differs between models stands in ``config.json``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
CONFIG, WEIGHTS, ARCHITECTURE = "config.json", "model.safetensors", "architecture.py"
ADAPTER, BACKBONE = "adapter_config.json", "backbone"  # of PEFT, and the folder of what its adapter belongs to


class RobustClassifier(nn.Module):
    """Images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        folder: The folder that holds the model; an adapter of PEFT there is put on the backbone beside it, which takes
            the package ``peft``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, folder: str | Path = HERE) -> None:
        super().__init__()
        folder = Path(folder)
        adapted = (folder / ADAPTER).is_file()
        network, config = _network(folder / BACKBONE if adapted else folder)
        self.model = _with_adapter(network, folder) if adapted else network
        self.classes: tuple[str, ...] = tuple(config.get("label_names", ()))
        self.upsampling: dict[str, Any] | None = config.get("upsampling")
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config["pretrained_cfg"][name]).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (N, C, H, W) in [0, 1], enlarge them if need be, and return logits (N, K)."""
        x = (x - self.mean) / self.std
        if self.upsampling is not None:
            size = (self.upsampling["to"], self.upsampling["to"])
            x = F.interpolate(x, size=size, mode=self.upsampling["mode"])  # bilinear: the corners of areas are aligned
        logits: Tensor = self.model(x)
        return logits


def load_model(folder: str | Path = HERE) -> RobustClassifier:
    """Return the classifier in evaluation mode, on the CPU."""
    return RobustClassifier(folder).eval()


def _network(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build timm's model, which takes normalised images, and load its weights strictly."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _register(config["architecture"], folder)
    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    network: nn.Module = timm.create_model(config["architecture"], **arguments)
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network, config


def _register(architecture: str, folder: Path) -> None:
    """Register an architecture that timm does not have; its code then lies in the folder."""
    if timm.is_model(architecture):
        return
    spec = importlib.util.spec_from_file_location("robust_architecture", folder / ARCHITECTURE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # timm looks up the module of what it registers
    spec.loader.exec_module(module)


def _with_adapter(network: nn.Module, folder: Path) -> nn.Module:
    from peft import PeftModel

    adapted: nn.Module = PeftModel.from_pretrained(network, str(folder))
    return adapted


for _folder in (HERE, HERE / BACKBONE):  # timm.create_model("local-dir:...") finds the architecture from here on
    if (_folder / CONFIG).is_file():
        _register(json.loads((_folder / CONFIG).read_text(encoding="utf-8"))["architecture"], _folder)
