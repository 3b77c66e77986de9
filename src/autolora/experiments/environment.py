"""The circumstances of a run: versions, commit, device."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from autolora.training.determinism import sources_of_difference

PACKAGES = ("torchvision", "timm", "accelerate", "numpy")


def environment(device: torch.device, precision: str, workers: int = 0, plugin: str | None = None) -> dict[str, Any]:
    """Return the ``environment`` block of ``result.json``.

    Args:
        device: Where the run computes.
        precision: Of training.
        workers: Processes that load images.
        plugin: SHA-256 of the file of ``--plugin``, if there is one.
    """
    return {
        **machine(device, precision, workers),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "differences": sources_of_difference(device, workers),
        **({} if plugin is None else {"plugin_sha256": plugin}),
    }


def machine(device: torch.device, precision: str, workers: int) -> dict[str, Any]:
    """Return what the numbers of a run may depend on beside its configuration and its images."""
    return {
        "version": _version("autolora"),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "workers": workers,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str:
    """Return the commit of a development checkout, marked if files were changed; empty for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{commit}-changed" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
