"""In which form a batch is computed: as it is written, compiled, or replayed by a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Literal, TypeVar

import torch
from torch import Tensor

from autolora.attacks import Objective
from autolora.attacks.climbing import AttackStep, Slope, climbing, image_gradient, repeated
from autolora.models import RobustModel
from autolora.models.folding import Network
from autolora.training.captured import CapturedSteps
from autolora.training.compiled import BACKEND, Backend, CompiledPasses, CompiledSlope
from autolora.training.trial import Trial

Compile = Literal["auto", "off", "attack", "on"]
T = TypeVar("T")

RECORDING = "2.15"  # the version of torch that is known to leave nothing behind of a recording that failed


@dataclass
class Forms:
    """The forms of attack and loss.

    Only batches of one size run compiled, those of training: a last one that is smaller, and validation, run as they
    are, since every size would be compiled by itself. Which form a batch takes depends on nothing else once it is
    chosen, so that a run that is resumed computes as it did before.

    Args:
        model: What is trained.
        images: In a whole batch of this process; 0: no batch runs compiled.
        attack: Whether the attack runs compiled.
        loss: Whether the passes of the loss, there and back, do.
        captured: Replays attack steps on a GPU; None: they are launched one by one.
        backend: Of ``torch.compile``.
    """

    model: RobustModel
    images: int
    attack: Trial
    loss: Trial
    captured: CapturedSteps | None = None
    backend: Backend = BACKEND

    def __post_init__(self) -> None:
        self._slope = CompiledSlope(self.model, self.backend)  # neither compiles anything before it is called
        self._passes = CompiledPasses(self.model.backbone, self.backend)

    @contextmanager
    def searching(self, network: Network, parts: int) -> Iterator[None]:
        """Return a context in which attacks on the model search this form of its backbone, as fast as is chosen.

        Args:
            network: The backbone in the form that is attacked.
            parts: In how many parts batches are taken.
        """
        with self.model.running(network), climbing(self.model, partial(self._climb, network, parts)):
            yield

    def learn(self, images: int, parts: int, work: Callable[[], T]) -> T:
        """Compute loss and gradients of so many images, with the backbone's passes in the form that is chosen."""
        if images != self._whole(parts):
            return work()
        return self.loss.run(work, partial(self._compiled, work))

    def begin(self, batches: int, parts: int) -> None:
        """Hear how many batches are left of the run."""
        self.attack.left = self.loss.left = batches * parts

    def chosen(self) -> dict[str, bool | None]:
        """Return what was chosen, for a checkpoint: None where nothing is yet."""
        return {"attack": self.attack.compiled, "loss": self.loss.compiled}

    def choose(self, chosen: Mapping[str, bool | None]) -> None:
        """Take what a trial had chosen before the run was interrupted."""
        for name, trial in (("attack", self.attack), ("loss", self.loss)):
            if trial.compiled is None and isinstance(found := chosen.get(name), bool):
                trial.compiled = found

    def release(self) -> bool:
        """Give back memory that was held for speed; say whether there was any."""
        return self.captured is not None and self.captured.release()

    def _whole(self, parts: int) -> int:
        return -(-self.images // parts)

    def _compiled(self, work: Callable[[], T]) -> T:
        with self._passes():
            return work()

    def _climb(
        self, network: Network, parts: int, step: AttackStep, x_adv: Tensor, x: Tensor, target: Tensor, steps: int
    ) -> Tensor:
        def through(slope: Slope, compiled: bool) -> Tensor:
            if self.captured is None or not _is_fixed(step.objective):
                return repeated(step, slope, x_adv, x, target, steps)
            tensors = [*network.tensors.values(), *self.model.parameters(), *self.model.buffers()]
            once, key = partial(step, slope), (step, compiled)
            return self.captured.climb(once, key, tensors, (x_adv, x, target), steps)

        plain = partial(through, image_gradient(self.model, step.objective), False)
        if len(x) != self._whole(parts):
            return plain()
        return self.attack.run(plain, partial(through, self._slope.of(network, step.objective), True))


def _is_fixed(objective: Objective) -> bool:
    """Say whether an objective is the same function at every call, so that what was recorded of it stays right."""
    return isinstance(objective, FunctionType) and objective.__closure__ is None


def forms_for(
    model: RobustModel,
    mode: Compile,
    device: torch.device,
    images: int,
    *,
    processes: int = 1,
    backend: Backend = BACKEND,
) -> Forms:
    """Return the forms that a mode stands for.

    ``auto`` tries what compiling brings on a GPU, where two runs of one seed differ anyhow, unless deterministic
    operations are asked for. On a CPU it leaves everything as it is: there a run is the same to the bit whenever it
    is repeated, which must not depend on a measured time. Several processes would have to agree on what they measure.

    Args:
        model: What is trained.
        mode: ``off``: nothing; ``attack``: the attack, and on a GPU its steps are replayed, from torch 2.15 on; ``on``:
            the passes of the loss too; ``auto``: see above.
        device: Where it computes.
        images: In a whole batch of this process.
        processes: Those that share the run.
        backend: Of ``torch.compile``.
    """
    gpu = device.type == "cuda"
    tried = mode == "auto" and gpu and processes == 1 and not torch.are_deterministic_algorithms_enabled()
    wait = partial(torch.cuda.synchronize, device) if gpu else lambda: None
    attack = Trial("attack", None if tried else mode in ("attack", "on"), wait=wait)
    loss = Trial("loss", None if tried else mode == "on", wait=wait)
    if tried or attack.compiled:
        torch.compiler.reset()  # the graphs of another run in this process would count against a limit
    recorded = gpu and mode in ("attack", "on") and torch.__version__ >= RECORDING
    return Forms(model, images, attack, loss, CapturedSteps() if recorded else None, backend)
