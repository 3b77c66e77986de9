"""The loop: attack, loss, step, validation. It knows no method, and it never sees a test image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy

from accelerate import Accelerator

from autolora.attacks import PGD
from autolora.methods import Method
from autolora.models import RobustModel
from autolora.schedules import Schedule
from autolora.training.assembly import Loaders, Optimization, assemble
from autolora.training.checkpoint import Checkpoints, TrainingState
from autolora.training.epoch import Loader
from autolora.training.forms import Compile
from autolora.training.method_state import unkept
from autolora.training.precision import Autocast
from autolora.training.replicas import synchronised
from autolora.training.session import Probe, Session
from autolora.training.snapshot import Anywhere, Circumstances, Snapshots

logger = logging.getLogger(__name__)


def fit(
    model: RobustModel,
    method: Method,
    train: Loader,
    val: Loader,
    schedule: Schedule,
    accelerator: Accelerator,
    *,
    epochs: int,
    val_attack: PGD,
    checkpoints: Checkpoints,
    optimization: Optimization | None = None,
    clean: Loader | None = None,
    probe: Probe | None = None,
    autocast: Autocast = nullcontext,
    names: Sequence[str] = (),
    circumstances: Circumstances | None = None,
    checkpoint_minutes: float = 0.0,
    accumulate: int = 1,
    compile: Compile = "off",
    sync_norms: bool = True,
    shard: bool = False,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[TrainingState], None] = lambda state: None,
) -> TrainingState:
    """Train, select the epoch on validation images, and leave that epoch's model, without branches.

    The test split is not an argument: nothing here can select on it.

    A run that is killed at any moment, and resumed on the same machine, gives the same weights to the bit as one that
    is not. SIGINT and SIGTERM are held back until the batch is done, and the run is saved; then they take effect.

    Args:
        model: What is trained, in place.
        method: Attack and loss.
        train: Training images, shuffled and augmented.
        val: Validation images, not augmented.
        schedule: Learning rate; may ask to go back to the best weights.
        accelerator: Devices and processes.
        epochs: Passes over the training images, at most; the schedule may stop earlier.
        val_attack: Attack for the robust validation accuracy.
        checkpoints: Where to keep the last and the best state.
        optimization: Momentum and weight decay.
        clean: The training images, not augmented and in a fixed order, for methods that measure on them.
        probe: Called after every epoch with its number; what it measures joins the epoch's row.
        autocast: Precision of attacks and losses; verdicts are taken in full precision.
        names: What the training images are called, by their number in the data set of ``train``.
        circumstances: Kept with the checkpoints, and compared before a run is continued.
        checkpoint_minutes: Save within an epoch when the last checkpoint is so old; 0: after epochs only.
        accumulate: Parts in which a batch is taken, one after the other; their gradients are summed.
        compile: What runs compiled: nothing (``"off"``), the attack, the passes of the loss too (``"on"``), or what a
            trial finds to be worth it (``"auto"``, on a GPU); see :func:`autolora.training.forms.forms_for`.
        sync_norms: With several processes on GPUs, batch norm normalises the joined batch of all.
        shard: Each of several processes keeps its part of weights, gradients and momentum; see ``training.sharding``.
        resume: Continue from the last checkpoint in ``checkpoints``.
        progress: Show a progress bar.
        on_epoch: Called after every epoch, with its row at the end of the history.

    Raises:
        InputError: If the model cannot be divided among processes, and is to be.
        TrainingError: If a loss is not finite; the last checkpoint is of a state that was.
        LoadingError: If images cannot be loaded any more; what was trained until then is saved.
        RunError: If no checkpoint is whole, or memory does not suffice.
    """
    method.prepare(model)
    learner = deepcopy(model) if shard else model  # what is divided cannot be put together in place
    optimization = optimization or Optimization()
    assembly = assemble(
        learner,
        method,
        Loaders(train, val, clean),
        schedule.lr,
        accelerator,
        val_attack=val_attack,
        optimization=optimization,
        autocast=autocast,
        names=names,
        accumulate=accumulate,
        compile=compile,
        shard=shard,
    )
    epoch = assembly.epoch
    snapshots = Snapshots(
        learner, method, schedule, assembly.optimizer, epoch, accelerator, checkpoints, circumstances or Anywhere()
    )
    if left_out := unkept(method):
        logger.warning(
            f"method {type(method).__name__} keeps {', '.join(left_out)}, which no checkpoint can hold: "
            "a run that is resumed may not be the same"
        )
    state = (snapshots.restore() if resume else None) or TrainingState()
    assembly.forms.begin((epochs - state.epoch) * len(epoch.train), epoch.update.parts)
    session = Session(epoch, snapshots, state, checkpoint_minutes * 60, optimization.reset_momentum, probe, on_epoch)
    several, device = accelerator.num_processes > 1, accelerator.device
    with synchronised(learner.backbone, sync_norms and several and device.type == "cuda"):
        session.run(epochs, progress)
    model.to(device).load_state_dict(checkpoints.load_best())
    method.finalize(model)
    return state
