"""Attacks: values with a call, from natural images to adversarial images of a threat model."""

from autolora.attacks.model import Forward, Objective
from autolora.attacks.pgd import PGD, Start, parse_attack

__all__ = ["PGD", "Forward", "Objective", "Start", "parse_attack"]
