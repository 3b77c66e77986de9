"""Turn any pre-trained vision backbone into an adversarially robust classifier of your own images.

.. code-block:: python

    import autolora

    result = autolora.finetune("photos/")          # -> RunResult; same options as ``autolora fit``
    model = autolora.load(result.folder)           # images (N, 3, H, W) in [0, 1] -> logits (N, K)
    scores = autolora.evaluate(model, x, y)        # AutoAttack; any nn.Module will do
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autolora.api import evaluate, finetune, load
    from autolora.attacks import PGD
    from autolora.attacks.autoattack.ensemble import AutoAttack
    from autolora.errors import InputError, RunError
    from autolora.experiments.config import RunConfig
    from autolora.experiments.result import RunResult
    from autolora.methods import METHODS, Batch, Method, register
    from autolora.models import RobustModel
    from autolora.threat import ThreatModel

__all__ = [
    "METHODS",
    "PGD",
    "AutoAttack",
    "Batch",
    "InputError",
    "Method",
    "RobustModel",
    "RunConfig",
    "RunError",
    "RunResult",
    "ThreatModel",
    "evaluate",
    "finetune",
    "load",
    "register",
]

_HOMES = {
    "AutoAttack": "autolora.attacks.autoattack.ensemble",
    "METHODS": "autolora.methods",
    "PGD": "autolora.attacks",
    "Batch": "autolora.methods",
    "InputError": "autolora.errors",
    "Method": "autolora.methods",
    "RobustModel": "autolora.models",
    "RunConfig": "autolora.experiments.config",
    "RunError": "autolora.errors",
    "RunResult": "autolora.experiments.result",
    "ThreatModel": "autolora.threat",
    "evaluate": "autolora.api",
    "finetune": "autolora.api",
    "load": "autolora.api",
    "register": "autolora.methods",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``autolora --help`` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autolora' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
