"""From epoch to epoch: select, tell the schedule, save; and what to do when an epoch does not come to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import torch
from tqdm import tqdm

from autolora.errors import RunError
from autolora.training.checkpoint import TrainingState
from autolora.training.draws import LoadingError, WorkerDied
from autolora.training.epoch import Epoch, Row, TrainingError
from autolora.training.interruption import Interrupted
from autolora.training.snapshot import Snapshots

Probe = Callable[[int], Row]  # a finished epoch's number to what was measured after it, if anything


@dataclass
class Session:
    """The epochs that one process trains of a run, which may take several processes one after the other.

    Args:
        epoch: An epoch, and what it works with.
        snapshots: What is kept after epochs and within them.
        state: Where the run stands.
        save_every: Seconds after which to save within an epoch; 0: never.
        reset_momentum: Forget the momentum when the schedule goes back to the best weights.
        probe: Measures after every epoch.
        on_epoch: Called after every epoch.
        saved: When the last checkpoint was taken, by ``time.monotonic``.
    """

    epoch: Epoch
    snapshots: Snapshots
    state: TrainingState
    save_every: float
    reset_momentum: bool
    probe: Probe | None
    on_epoch: Callable[[TrainingState], None]
    saved: float = 0.0

    def run(self, epochs: int, progress: bool) -> None:
        """Train until there are so many epochs, or the schedule stops."""
        state, schedule, batches = self.state, self.snapshots.schedule, len(self.epoch.train)
        done = state.epoch * batches + (self.epoch.partial.batches if self.epoch.partial else 0)
        bar = tqdm(total=epochs * batches, initial=done, unit="batch", disable=not progress, dynamic_ncols=True)
        self.saved = time.monotonic()
        with bar, self.epoch.interruption:
            while state.epoch < epochs and not schedule.stopped:
                bar.set_description(f"epoch {state.epoch + 1}/{epochs}")
                try:
                    row = self._epoch(bar)
                except Interrupted:
                    self._save_part()
                    raise
                except LoadingError:
                    if self.epoch.accelerator.num_processes == 1:  # the others would not come to save
                        self._save_part()
                    self.epoch.interruption.check()  # the signal may have ended the workers too
                    raise
                except TrainingError:
                    self._go_back()
                    raise
                except RuntimeError as error:
                    if (died := WorkerDied.by(error)) is None:
                        raise
                    self.epoch.interruption.check()  # as above; no part is saved, which may be in the middle of a step
                    raise died from error
                self._conclude(row)

    def _epoch(self, bar: tqdm[NoReturn]) -> Row:
        state, lr = self.state, self.snapshots.schedule.lr
        row = {"epoch": state.epoch + 1, "lr": lr} | self.epoch.run(lr, bar, self._after_batch)
        if self.probe is not None:
            with self.epoch.interruption.at_once():
                row |= self.probe(state.epoch + 1)
        return row

    def _conclude(self, row: Row) -> None:
        """Select, let the schedule see the score, and save."""
        state, shards, checkpoints = self.state, self.epoch.update.shards, self.snapshots.checkpoints
        score = row["val_robust" if self.epoch.method.selects_on == "robust" else "val_natural"]
        if score > state.best:
            state.best = score
            weights = shards.weights()
            self._on_main(lambda: checkpoints.save_best(weights))
        if self.snapshots.schedule.observe(score):
            shards.load(checkpoints.load_best())  # weights and buffers; the momentum stays, as in the release
            if self.reset_momentum:
                self.snapshots.optimizer.state.clear()
        self._finish_epoch(row)
        self._save()
        self._on_main(lambda: self.on_epoch(state))
        if self._agreed(self.epoch.interruption.requested is not None):
            raise Interrupted

    def _finish_epoch(self, row: Row) -> None:
        partial, state = self.epoch.partial, self.state
        assert partial is not None
        seconds, waited = partial.elapsed(), partial.waited
        self.epoch.partial = None
        state.epoch += 1
        state.seconds += seconds
        images_per_second = row.pop("images") / seconds
        clock = {"seconds": seconds, "images_per_second": images_per_second, "waiting": waited / seconds}
        state.history.append(row | clock)

    def _after_batch(self) -> None:
        if self._agreed(self.epoch.interruption.requested is not None):
            raise Interrupted
        if self._agreed(0 < self.save_every <= time.monotonic() - self.saved):
            self._save()

    def _save(self) -> None:
        self.snapshots.save(self.state)
        self.saved = time.monotonic()

    def _save_part(self) -> None:
        """Save the part of an epoch that was trained; between epochs all is saved already."""
        if self.epoch.partial is not None:
            self._save()

    def _go_back(self) -> None:
        """Give the model the weights of the last checkpoint, all of which were finite."""
        with suppress(RunError):  # that no checkpoint is whole is not the news now
            if (saved := self.snapshots.checkpoints.load_last()) is not None:
                self.epoch.update.shards.load(saved.weights)

    def _agreed(self, wanted: bool) -> bool:
        """Say whether any process wants it; all of them get the same answer."""
        accelerator = self.epoch.accelerator
        if accelerator.num_processes == 1:
            return wanted
        return bool(accelerator.reduce(torch.tensor(float(wanted), device=accelerator.device), "sum") > 0)

    def _on_main(self, action: Callable[[], None]) -> None:
        """Write in one process, and let the others wait until it is there."""
        if self.epoch.accelerator.is_main_process:
            action()
        self.epoch.accelerator.wait_for_everyone()
