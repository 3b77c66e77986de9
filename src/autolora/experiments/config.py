"""The configuration of a run: one frozen dataclass, which command line, YAML and Python fill in alike."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from autolora.errors import InputError
from autolora.experiments.kinds import check_kinds
from autolora.paths import expanded

Compile = Literal["auto", "off", "attack", "on"]

MANNER = ("out", "workers", "checkpoint_minutes", "data_root", "track")
"""Options that decide how a run is carried out, not what it is; ``environment`` records what that may change."""

IMMATERIAL = (*MANNER, "device", "compile", "skip_bad_images")
"""With those that change rounding at most, or which images there are, which their fingerprint tells."""


def option(default: Any, text: str) -> Any:
    """Return a dataclass field with a default and the help text of its option."""
    return field(default=default, metadata={"help": text})


LARGEST_SEED = 2**32 - 1  # seeds of shards and parts are made of it, and have to fit into 63 bits


def check_seed(seed: int) -> None:
    """Refuse a seed that generators cannot take.

    Raises:
        InputError: If it is negative or too large.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed={seed} is out of range; use one of 0 to {LARGEST_SEED}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run does. Every field but ``data`` has a default that needs no thought.

    The help text of a field is in its metadata. ``None`` means "found out from the data or the model": the run says
    what it found, and keeps it in ``config.yaml``.
    """

    data: str = field(
        metadata={"help": "folder of class folders (or train/ [val/] test/), archive of one, or named set"}
    )
    model: str = option(
        "packaged", "packaged robust backbone, timm name, hf-hub:NAME, salman2020:NAME, a run folder or a checkpoint"
    )
    weights: str = option(
        "auto", "auto, pretrained, packaged, none (random), salman2020:NAME, a run folder or a checkpoint file"
    )
    weights_format: str = option(
        "auto", "format of the checkpoint, in case it is not recognised; `autolora models` lists them"
    )
    method: str = option("autolora", "method to train with; `autolora methods` lists them")
    method_options: dict[str, Any] | None = option(None, "further options of the method, e.g. --method-options.alpha 2")
    rank: int | None = option(None, "rank of the low-rank branch (default of the method: 8)")
    adapter: str | None = option(None, "PEFT adapter to merge into the backbone first, such as RUN/adapter")
    head: Literal["default", "zero"] = option("default", "first weights of the head: torch's default, or zero")
    eps: float | str = option("8/255", "radius of the threat model, in pixel units [0, 1]")
    norm: Literal["Linf", "L2"] = option("Linf", "norm of the threat model")
    attack: str = option("pgd-10", "training attack: pgd-K, or one-step (fast adversarial training)")
    step_size: float | str | None = option(
        None, "length of an attack step (default: eps/4 for pgd-K; 1.25 eps, one-step)"
    )
    epochs: int | None = option(None, "passes over the training images (default: 60, on few images 30)")
    batch_size: int | Literal["auto"] | None = option(
        None, "images per step (default: 128, less on few images; auto: as many as fit into memory)"
    )
    accumulate: int = option(1, "parts in which a batch is taken, for less memory; the gradient is the batch's")
    image_size: int | None = option(None, "side in pixels that images are brought to (default: the model's own)")
    upsample_to: int | None = option(
        None, "side in pixels to which the model enlarges them for its backbone (default: no, or as MODEL does)"
    )
    upsampling: Literal["nearest", "bilinear"] | None = option(
        None, "how: nearest or bilinear (default: nearest, as in the papers, or as MODEL does)"
    )
    schedule: Literal["auto", "multistep", "cosine", "constant"] = option("auto", "learning-rate schedule")
    schedule_options: dict[str, Any] | None = option(
        None, "further options of the schedule, e.g. --schedule-options.rho 0.5"
    )
    lr: float = option(0.01, "first learning rate")
    momentum: float = option(0.9, "momentum of SGD")
    weight_decay: float = option(1e-4, "weight decay of SGD")
    reset_momentum: bool = option(False, "forget the momentum when the schedule goes back to the best weights")
    gradient_similarity: int = option(0, "every N epochs, how alike the gradients of the loss terms are (0: never)")
    val_fraction: float | None = option(None, "share of training images for validation (default: 0.05, more if few)")
    label_fraction: float = option(1.0, "share of the training images to use")
    classes: str | None = option(None, "keep only these classes, comma-separated, in this order")
    augmentation: Literal["auto", "none", "crop", "crop-flip"] = option("auto", "augmentation of training images")
    data_root: str | None = option(
        None, "folder of the named data sets (default: $AUTOLORA_DATA, or ~/.cache/autolora/data)"
    )
    skip_bad_images: bool = option(False, "leave out images that cannot be read, and list them")
    seed: int = option(0, "seed of split, initialisation, order and attacks")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "of training; auto: bf16 where hardware has it")
    compile: Compile = option(
        "auto", "torch.compile for the attack, or the loss too (on); auto: where a trial on a GPU pays"
    )
    sync_batch_norm: Literal["auto", "off"] = option(
        "auto", "auto: with several processes on GPUs, batch norm sees the whole batch; off: each its share"
    )
    shard: bool = option(False, "each of several processes keeps a part of weights, gradients and momentum (FSDP)")
    workers: int = option(0, "processes that load images")
    deterministic: bool = option(False, "only operations that give the same bits every time, on a GPU too; slower")
    checkpoint_minutes: float = option(15.0, "save within an epoch too, every so many minutes (0: after epochs only)")
    track: Literal["auto", "none", "tensorboard", "wandb", "mlflow", "trackio"] = option(
        "auto", "where rows of the log go too while it trains; auto: tensorboard if installed"
    )
    plugin: str | None = option(None, "Python file that registers a method of your own")
    out: str | None = option(None, "run folder (default: runs/DATA-METHOD)")

    def __post_init__(self) -> None:
        check_kinds(self)
        at_least = {"epochs": 1, "batch_size": 2, "rank": 1, "image_size": 8, "workers": 0}
        at_least |= {"gradient_similarity": 0, "upsample_to": 8, "accumulate": 1}
        for name, low in at_least.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < low:
                raise InputError(f"{name.replace('_', '-')}={value} is too small; use {low} or more")
        check_seed(self.seed)
        if isinstance(self.batch_size, int) and self.batch_size < 2 * self.accumulate:
            raise InputError(
                f"accumulate={self.accumulate}: a batch of {self.batch_size} images has not so many parts of two or "
                "more; use fewer"
            )
        if self.lr <= 0:
            raise InputError(f"lr={self.lr}: a learning rate is positive; the paper starts at 0.01")
        if not 0 <= self.checkpoint_minutes < math.inf:
            raise InputError(f"checkpoint-minutes={self.checkpoint_minutes}: give minutes, 0 or more, such as 15")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum} is outside [0, 1); the paper takes 0.9")
        if not 0 <= self.weight_decay <= 1e30:
            raise InputError(f"weight-decay={self.weight_decay} is out of range; the paper takes 1e-4")

    @property
    def folder(self) -> Path:
        """Return the run folder: the one asked for, or ``runs/DATA-METHOD``."""
        if self.out is not None:
            return expanded(self.out)
        named = re.match(r"(?:hf|wds|torchvision):([^,{]*)", self.data)  # hf:A/B,label=..., wds:A-{0..9}.tar
        name = Path(named[1].rstrip("-") if named else self.data).name.split(".")[0] or "data"
        return Path("runs") / f"{name}-{self.method}"


def config_from(options: Mapping[str, Any]) -> RunConfig:
    """Make a configuration from keyword options.

    Raises:
        InputError: If an option is unknown (the message suggests a name), or ``data`` is missing.
    """
    known = [item.name for item in fields(RunConfig)]
    for name in options:
        if name not in known:
            raise InputError(f"option {name!r} is unknown{suggestion(name, known)}")
    if not isinstance(options.get("data"), str | os.PathLike) or not os.fspath(options["data"]):
        raise InputError("no data given; name a folder of class folders, an archive of one, or a set such as digits")
    return RunConfig(**{**options, "data": os.fspath(options["data"])})


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` when there is a name that looks alike, else what there is."""
    names = list(known)
    close = difflib.get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(names)) or 'none'}"


def to_yaml(config: RunConfig) -> str:
    """Write a configuration as YAML that ``--config`` reads back."""
    return yaml.safe_dump({item.name: getattr(config, item.name) for item in fields(config)}, sort_keys=False)


def read_yaml(path: Path) -> RunConfig:
    """Read a configuration that :func:`to_yaml` wrote.

    Raises:
        InputError: If it is no YAML, a key is unknown or a value cannot be.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is damaged and cannot be read as YAML ({type(error).__name__})") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} does not hold the options of a run, NAME: VALUE; it is damaged, or of something else")
    return config_from(content)
