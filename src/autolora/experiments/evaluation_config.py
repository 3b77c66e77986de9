"""The configuration of an evaluation: one frozen dataclass, filled in from the command line. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autolora.errors import InputError
from autolora.experiments.config import check_seed, option
from autolora.experiments.kinds import check_kinds

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
    eps: tuple[str, ...] = option((), "radius in pixel units; repeats, the first is the main one (default: the run's)")
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
    out: str | None = option(None, "folder (default: RUN/evaluation/ATTACK, or evaluations/MODEL)")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_seed(self.seed)
        for name, low in {"limit": 1, "restarts": 1, "batch_size": 1, "image_size": 8}.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"{name.replace('_', '-')}={value} is too small; use {low} or more")

    @property
    def folder(self) -> Path:
        """Return where the evaluation goes."""
        if self.out is not None:
            return Path(self.out)
        model = Path(self.model)
        if (model / "result.json").is_file():
            # the reference's one level deeper, where `compare` does not take it for another score of the same attack
            engine = () if self.engine == "own" else (self.engine,)
            return Path(model, "evaluation", *engine, "-".join(self.attacks))
        name = "model" if model.name in ("", "..") else model.name  # which would be above the folder
        return Path("evaluations") / name.replace(":", "-")

    @property
    def attacks(self) -> tuple[str, ...]:
        """Return the attacks asked for."""
        return self.attack or (("autoattack-fast",) if self.fast else ("autoattack",))
