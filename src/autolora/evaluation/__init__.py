"""Evaluation: verdicts per image, and accuracies with their intervals."""

from autolora.evaluation.accuracy import Batches, Verdicts, accuracy, verdicts
from autolora.evaluation.statistics import Score, standard_error

__all__ = ["Batches", "Score", "Verdicts", "accuracy", "standard_error", "verdicts"]
