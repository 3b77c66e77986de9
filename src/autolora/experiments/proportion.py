"""Radii that are out of proportion to the images: next to no adversary, or one that no classifier withstands."""

from __future__ import annotations

import logging

from autolora.evaluation.eps_view import GREY_LEVELS, grey_point
from autolora.threat import Radius, ThreatModel, format_radius, parse_radius

logger = logging.getLogger(__name__)

FAINT = 0.5  # grey levels that a pixel moves under L2 when all move alike; the customary 128/255 is 2.3 at 32x32
CUSTOMARY_L2 = "128/255 is customary at 32x32, 3 at 224x224"


def shown(eps: Radius) -> str:
    """Write a radius as people do: 3, where :func:`format_radius` has 765/255."""
    radius = parse_radius(eps)
    return str(int(radius)) if radius == int(radius) else format_radius(radius)


def warn_of_proportion(threat: ThreatModel, pixels: int) -> None:
    """Log a warning if a radius is out of proportion; 0, which allows nothing, is taken as meant.

    Args:
        threat: With the radius.
        pixels: Values of an image, d = 3 * H * W.
    """
    radius = f"{threat.norm} {shown(threat.eps)}"
    if (limit := grey_point(pixels, threat.norm)) <= threat.radius:
        logger.warning(
            f"{radius} lets every image be made uniform grey, as all radii from {limit:.3g} on do: only a constant "
            f"answer is robust; {'8/255 is customary' if threat.norm == 'Linf' else CUSTOMARY_L2}"
        )
    elif threat.norm == "L2" and 0 < threat.radius / pixels**0.5 * GREY_LEVELS < FAINT:
        logger.warning(f"{radius} is next to no adversary when spread over the image; {CUSTOMARY_L2}")
