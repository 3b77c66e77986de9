"""Evaluation: verdicts per image, and accuracies with their intervals."""

from autolora.evaluation.accuracy import Batches, Verdicts, accuracy, verdicts
from autolora.evaluation.statistics import (
    Discordance,
    Score,
    TTest,
    holm,
    paired_t_test,
    standard_error,
    welch_t_test,
)

__all__ = [
    "Batches",
    "Discordance",
    "Score",
    "TTest",
    "Verdicts",
    "accuracy",
    "holm",
    "paired_t_test",
    "standard_error",
    "verdicts",
    "welch_t_test",
]
