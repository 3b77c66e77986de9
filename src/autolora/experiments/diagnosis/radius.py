"""Findings about eps: its unit, its size beside the images, and what it leaves possible."""

from __future__ import annotations

from fractions import Fraction

from autolora.evaluation.eps_view import GREY_LEVELS, EpsView, grey_point
from autolora.experiments.diagnosis import Finding, Status
from autolora.experiments.proportion import CUSTOMARY_L2, FAINT, shown
from autolora.threat import Norm, Radius, ThreatModel, format_radius, parse_radius

LARGEST_CUSTOMARY = 16 / 255  # Linf, on photographs; 0.3 on handwritten digits
MANY = 0.02  # share of images on which nobody can be robust, from which the radius is at fault


def radius_of(given: Radius, norm: Norm) -> Fraction | float:
    """Read a radius, also one that is out of proportion: to say so is the doctor's job.

    Raises:
        InputError: If it is none: no number, or negative.
    """
    eps = parse_radius(given)
    ThreatModel(min(eps, 1) if norm == "Linf" else eps, norm)
    return eps


def eps_finding(eps: Fraction | float, norm: Norm, pixels: int, view: EpsView) -> Finding:
    """Judge the unit and the size of a radius.

    Args:
        eps: In pixel units.
        norm: Of the threat model.
        pixels: Values of an image, d = 3 * H * W.
        view: Of the images with this radius.
    """
    status, remark, advice = _judged(eps, norm, pixels, view)
    size = f"{_levels(view)} of {GREY_LEVELS}, {view.share:.0%} of the median contrast"
    found = f"{norm} {shown(eps)} is {size}" + (f"; {remark}" if remark else "")
    details = {
        "eps": format_radius(eps),
        "radius": float(eps),
        "norm": norm,
        "grey_levels": view.grey_levels,
        "contrast": view.contrast,
        "grey_point": grey_point(pixels, norm),
    }
    return Finding("eps", status, found, advice, details)


def separation_finding(view: EpsView, eps: Fraction | float) -> Finding:
    """Say between how many images of different classes the radius leaves no room."""
    details = {"compared": view.compared, "nearest": view.nearest, "inseparable": view.inseparable}
    if view.nearest is None:
        return Finding("separation", "note", f"all {view.compared} images are of one class", details=details)
    half = f"half the smallest distance is {view.nearest / 2:.3g} ({GREY_LEVELS * view.nearest / 2:.1f}/255)"
    if not view.inseparable:
        found = f"none of {view.compared} images has another class within 2 eps; {half}"
        return Finding("separation", "ok", found, details=details)
    found = (
        f"{view.inseparable} of {view.compared} images have another class within 2 eps: no classifier is robust on "
        f"both images of such a pair; {half}"
    )
    many = view.inseparable > MANY * view.compared
    advice = "take a smaller eps" if many else "look for images with the wrong class"
    return Finding("separation", "problem" if many else "note", found, advice, details)


def _levels(view: EpsView) -> str:
    levels = f"{view.grey_levels:.3g}" if view.grey_levels < GREY_LEVELS else f"{view.grey_levels:.0f}"
    return f"{levels} grey level{'' if levels == '1' else 's'}"


def _judged(eps: Fraction | float, norm: Norm, pixels: int, view: EpsView) -> tuple[Status, str, str]:
    """Status, what is remarkable, and what to do."""
    if (limit := grey_point(pixels, norm)) <= eps:
        remark = f"from {limit:.3g} on every image can be made uniform grey, and only a constant answer is robust"
        return "problem", remark, _meant(eps, norm)
    if eps == 0:
        return "note", "it allows nothing: robust accuracy is natural accuracy", "give a radius, such as --eps 8/255"
    return _judged_linf(eps) if norm == "Linf" else _judged_l2(view)


def _meant(eps: Fraction | float, norm: Norm) -> str:
    if norm == "Linf" and eps <= 1:
        return f"pixels lie in [0, 1]: did you mean --eps 8/255, or --norm L2 --eps {shown(eps)}?"
    return f"pixels lie in [0, 1]: did you mean --eps {shown(eps)}/255?"


def _judged_linf(eps: Fraction | float) -> tuple[Status, str, str]:
    levels = float(eps) * GREY_LEVELS
    if levels < 1:
        return "note", "below one grey level: saved with 8 bits, no adversarial image differs from its original", ""
    if not isinstance(eps, Fraction) and round(levels) != levels:
        advice = f"write --eps {round(levels)}/255 if that is meant"
        return (
            "note",
            f"{levels:.4g}/255 is no whole number of grey levels, and another threat model than {round(levels)}/255",
            advice,
        )
    if eps > LARGEST_CUSTOMARY:
        return "note", "larger than the customary 1/255 to 16/255 for photographs", ""
    return "ok", "", ""


def _judged_l2(view: EpsView) -> tuple[Status, str, str]:
    if view.share >= 1:
        remark = "half of the images can be made uniform, and show nothing any more"
        return "problem", remark, f"take a smaller eps; {CUSTOMARY_L2}"
    if view.grey_levels < FAINT:
        remark = "next to no adversary when spread over the image"
        return "note", remark, CUSTOMARY_L2
    return "ok", "", ""
