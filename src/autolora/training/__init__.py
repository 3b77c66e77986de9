"""Training: one loop for every method, with checkpoints that a killed run continues from."""

from autolora.training.assembly import Optimization
from autolora.training.checkpoint import Checkpoints, TrainingState
from autolora.training.draws import LoadingError
from autolora.training.epoch import TrainingError
from autolora.training.loop import fit
from autolora.training.step import Step

__all__ = ["Checkpoints", "LoadingError", "Optimization", "Step", "TrainingError", "TrainingState", "fit"]
