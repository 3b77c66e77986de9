"""A finished run on two classes of tiny photos, of which one has a name that is markup."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import autolora

CLASSES = ("<img src=x onerror=alert(1)>", "bee")  # in the order of their names


def trained(root: Path) -> Path:
    """Write ``photos/`` and the run ``run/`` on them; return the folder of both."""
    generator = np.random.default_rng(0)
    for name, level in zip(CLASSES, (60, 190), strict=True):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(14):
            pixels = generator.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    autolora.finetune(root / "photos", out=root / "run", method="ft", epochs=2, progress=False)
    return root


def png(pixels: Any) -> bytes:
    """Return the bytes of an image file."""
    written = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(written, "PNG")
    return written.getvalue()
