"""A run's adapter in PEFT's format, with the pre-trained backbone that it belongs to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from autolora.errors import InputError
from autolora.experiments.beginning import first_model
from autolora.experiments.config import RunConfig
from autolora.experiments.export.product import Product
from autolora.experiments.export.robust_model import BACKBONE
from autolora.experiments.export.timm_folder import write_network, write_wrapper
from autolora.methods import METHODS
from autolora.models import RobustModel
from autolora.models.adapter_files import CONFIG, FACTS, load_adapter, save_adapter
from autolora.models.adapters import Adapter, check_backbone, merge

TOLERANCE = 1e-5  # largest difference of logits, relative to the largest


def write_peft(product: Product, folder: Path) -> None:
    """Write the adapter, its backbone and the wrapper.

    Raises:
        InputError: If there is no adapter, or the backbone cannot be built as it was when training began.
    """
    source = adapter_folder(product)
    adapter = load_adapter(source)
    if adapter.architecture is None:
        raise InputError(f"adapter {source}: {FACTS} is not there, and says which backbone it belongs to; train again")
    backbone = _backbone(product, adapter)
    write_network(backbone, folder / BACKBONE, product.classes, {})
    save_adapter(adapter, folder, adapter.classes, product.record)  # the run's own record holds a path
    write_wrapper(folder)
    merge(adapter, backbone, head=True)
    _check_same(backbone, product.model)


def adapter_folder(product: Product) -> Path:
    """Return where a run keeps its adapter.

    Raises:
        InputError: If it has none; the message says why.
    """
    if product.config is None:
        raise InputError(f"{product.source} is no run, and holds no adapter; give the folder of a run of loft")
    folder = product.source / "adapter"
    if (folder / CONFIG).is_file():
        return folder
    if METHODS[product.config.method].keeps_adapter:
        why = "PEFT has no form for some of the layers that it adapted (docs/adapters.md lists which)"
    else:
        keepers = " or ".join(name for name, method in METHODS.items() if method.keeps_adapter)
        why = f"{product.config.method} trains no adapter that outlives training, and {keepers} does"
    raise InputError(f"{product.source} has no adapter: {why}; use --format timm for its model")


def _backbone(product: Product, adapter: Adapter) -> RobustModel:
    """Build the backbone again as it was when training began, with the adapter's head on it."""
    assert product.config is not None
    try:
        model = build_backbone(product.config, len(product.classes))
        check_backbone(adapter, model)
    except InputError as error:
        raise InputError(
            f"the backbone that the adapter of {product.source} belongs to cannot be built again: {error}"
        ) from None
    model.head.load_state_dict(adapter.head)  # PEFT puts the adapter's head there in any case
    return model


def build_backbone(config: RunConfig, classes: int) -> RobustModel:
    """Build the model that a run began with, in evaluation mode; its head is a new one.

    Raises:
        InputError: If the model or its weights are out of reach.
    """
    with torch.random.fork_rng():
        return first_model(config, classes).eval()


@torch.no_grad()
def _check_same(merged: nn.Module, model: RobustModel) -> None:
    """Refuse an adapter that does not make the run's model of the backbone."""
    x = torch.rand(2, *model.architecture.input_size, generator=torch.Generator().manual_seed(0))
    expected = model(x)
    difference = (merged(x) - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    if not difference <= TOLERANCE:
        raise InputError(
            f"adapter and backbone together give other logits than the run's model (they differ by {difference:.1e} "
            "of the largest); one of the files was changed, so train again"
        )
