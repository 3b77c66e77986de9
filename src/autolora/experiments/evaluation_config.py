"""The configuration of an evaluation: one frozen dataclass, filled in from the command line. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autolora.errors import InputError
from autolora.experiments.config import check_seed, option
from autolora.experiments.kinds import check_kinds
from autolora.paths import expanded

Split = Literal["train", "val", "test"]
Engine = Literal["own", "reference"]
EpsIn = Literal["pixels", "normalised"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class EvaluationConfig:
    """Everything that decides an evaluation; the help text of a field is in its metadata."""

    model: str = field(
        metadata={"help": "run folder, folder with a model in timm's format, packaged, timm name, or checkpoint file"}
    )
    data: str | None = option(None, "images to evaluate on (default: those of the run)")
    data_root: str | None = option(
        None, "folder of the named data sets (default: the run's, $AUTOLORA_DATA, or ~/.cache/autolora/data)"
    )
    split: Split = option("test", "which of them")
    attack: tuple[str, ...] = option((), "autoattack, autoattack-fast or pgd-K; repeats (default: autoattack)")
    engine: Engine = option("own", "whose AutoAttack: own, or reference (its authors' package, the extra [reference])")
    eps: tuple[str, ...] = option(
        (), "radius in pixel units; repeats, the first is the main one (default: the run's, or 8/255)"
    )
    eps_in: EpsIn = option(
        "pixels",
        "units of --eps: pixels, or normalised (of images as the backbone sees them, to test others' numbers)",
    )
    norm: Literal["Linf", "L2"] | None = option(
        None, "norm of the threat model: Linf or L2 (default: the run's, or Linf)"
    )
    limit: int | None = option(None, "images of a stratified sample (default: all; 500 with --fast)")
    fast: bool = option(False, "the first two attacks of AutoAttack on a sample: an upper bound")
    corruptions: bool = option(False, "accuracy under 15 common corruptions at 5 severities as well")
    restarts: int = option(1, "runs of PGD from random points (1: one, from the natural image)")
    weights: str = option("auto", "for a timm name: auto, pretrained, none (random), or a checkpoint file")
    weights_format: str = option(
        "auto", "format of the checkpoint, in case it is not recognised; `autolora models` lists them"
    )
    image_size: int | None = option(None, "side in pixels that images are brought to (default: the model's own)")
    batch_size: int | None = option(None, "images to judge at once (default: 256 at 32x32, fewer where larger)")
    seed: int = option(0, "seed of attacks and sample")
    precision: Precision = option(
        "auto", "of the search: auto, fp32, bf16 or fp16; what it finds is judged in fp32 (default: auto)"
    )
    device: Device = option("auto", "where to compute: auto, cpu or cuda")
    out: str | None = option(None, "folder (default: RUN/evaluation/ATTACK, or evaluations/MODEL/ATTACK)")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_seed(self.seed)
        for name, low in {"limit": 1, "restarts": 1, "batch_size": 1, "image_size": 8}.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"{name.replace('_', '-')}={value} is too small; use {low} or more")
        self._check_attacks()

    def _check_attacks(self) -> None:
        """Refuse options that contradict each other, of which one would be dropped."""
        for name in self.attack:
            check_steps(name)
        others = [name for name in self.attack if name != "autoattack-fast"]
        if self.fast and others:
            raise InputError(
                f"fast is autoattack-fast on a sample, and attack={others[0]} is something else; leave out one of them "
                "(--limit N draws a sample as well)"
            )
        if self.restarts > 1 and not any(name.startswith("pgd") for name in self.attacks):
            raise InputError(
                f"restarts={self.restarts} are of PGD, and {', '.join(self.attacks)} has its own; leave them out, or "
                "give --attack pgd-K"
            )

    @property
    def folder(self) -> Path:
        """Return where the evaluation goes."""
        if self.out is not None:
            return expanded(self.out)
        model = expanded(self.model)
        # the reference's one level deeper, where `compare` does not take it for another score of the same attack
        engine = () if self.engine == "own" else (self.engine,)
        attacks = Path(*engine, "-".join(self.attacks))
        if (model / "result.json").is_file():
            return model / "evaluation" / attacks
        name = "model" if model.name in ("", "..") else model.name  # which would be above the folder
        return Path("evaluations") / name.replace(":", "-") / attacks

    @property
    def attacks(self) -> tuple[str, ...]:
        """Return the attacks asked for."""
        return self.attack or (("autoattack-fast",) if self.fast else ("autoattack",))


def check_steps(attack: str) -> None:
    """Refuse PGD without a step, which leaves every image as it is, or where it was drawn.

    Raises:
        InputError: If the attack is of that name.
    """
    if re.fullmatch(r"pgd-0+", attack):
        raise InputError(
            f"attack={attack} takes no step and attacks nothing; use pgd-K of 1 step or more, such as pgd-10"
        )
