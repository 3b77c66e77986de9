"""A run as the commands that make it, for a shell or for a process."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolora.experiments.config import read_yaml
from autolora.experiments.result import CONFIG, EVALUATION, RESULT
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.layout import validated_on_test
from autolora.experiments.suites.places import Places
from autolora.experiments.suites.settings import Options
from autolora.experiments.suites.store import Store

Command = tuple[str, ...]  # the words behind `autolora`


@dataclass(frozen=True)
class Step:
    """A command that is left to do for a run.

    Args:
        command: The words behind ``autolora``.
        makes: The file that it writes last: where that is, the step is done.
    """

    command: Command
    makes: Path


def steps(
    job: Job,
    store: Store,
    places: Places,
    attacks: Mapping[str, Options] | None = None,
    compile: str | None = None,
) -> list[Step]:
    """Return what is left to do for a run: to fit it, and to evaluate it with each attack.

    Every command continues what was begun, so that it can be given again after an interruption.

    Args:
        job: The run.
        store: What there is.
        places: Where data and weights lie.
        attacks: What to evaluate it with, and the options of ``autolora evaluate`` for that.
        compile: See :func:`fit_command`.

    Raises:
        InputError: If data or weights have not been provided, or the run's folder holds another run.
    """
    left = []
    if store.result(job) is None:
        left.append(Step(fit_command(job, store, places, compile), store.path(job) / RESULT))
    for attack in store.unasked(job, attacks or {}):
        options = {"out": str(store.evaluation(job, attack))} | dict((attacks or {})[attack])
        command = ("evaluate", str(store.path(job)), "--attack", attack, *flags(options), "--resume")
        left.append(Step(command, store.evaluation(job, attack) / EVALUATION))
    return left


def fit_command(job: Job, store: Store, places: Places, compile: str | None = None) -> Command:
    """Return the ``autolora fit`` of a run.

    Args:
        job: The run.
        store: What there is.
        places: Where data and weights lie.
        compile: The option of ``fit``, for a run that is begun; None: its default. One that goes on keeps its own,
            since ``fit`` continues no run in another form.

    Raises:
        InputError: If data or weights have not been provided.
    """
    options = dict(job.options)
    data = places.path(str(options.pop("data")))
    if job.selects_on_test:
        data = str(store.data(laid_out(job, places)))
    if "weights" in options:
        options["weights"] = places.path(str(options["weights"]))
    if job.backbone is not None:
        options["model"] = str(store.path(job.backbone))
    begun = store.path(job) / CONFIG
    options["compile"] = read_yaml(begun).compile if begun.is_file() else compile
    options["out"] = str(store.path(job))
    return ("fit", data, *flags(options), "--resume")


def lay_out(job: Job, store: Store, places: Places) -> None:
    """Make the data whose validation images are the test images, if the run needs them and they are not there.

    Raises:
        InputError: If the data have no test images of their own.
    """
    if job.selects_on_test:
        validated_on_test(places.path(str(job.options["data"])), store.data(laid_out(job, places)))


def laid_out(job: Job, places: Places) -> str:
    """Return what data are called whose validation images are the test images: other data have another name."""
    path = places.path(str(job.options["data"]))
    where = hashlib.sha256(os.fspath(Path(path).expanduser().absolute()).encode()).hexdigest()[:8]
    return f"{Path(path).name.split('.')[0]}-validated-on-test-{where}"


def as_shell(command: Command) -> str:
    """Write a command as it is typed."""
    return shlex.join(("autolora", *command))


def flags(options: Mapping[str, Any], prefix: str = "--") -> Iterator[str]:
    """Yield options as they are typed: those of a mapping with dots between, none for what is None or False."""
    for name, value in options.items():
        flag = prefix + (name if "." in prefix else name.replace("_", "-"))
        if isinstance(value, Mapping):
            yield from flags(value, f"{flag}.")
        elif value is True:
            yield flag
        elif value is not None and value is not False:
            yield from (flag, json.dumps(value) if isinstance(value, list | tuple) else str(value))
