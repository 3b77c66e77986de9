"""``autolora pretrain``: adversarial training from random weights, to make a robust backbone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import bars, config_parser, to_config
from autolora.cli.options import resume_hint as hint_for
from autolora.cli.sharing import shared

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.processes import Processes

NAME = "pretrain"
HELP = "adversarial pre-training of a backbone"
EPILOG = """examples:
  autolora pretrain cifar10.zip --out runs/backbone              fast adversarial training (one-step attack)
  autolora pretrain cifar10.zip --attack pgd-10 --epochs 60
  autolora fit photos/ --model runs/backbone                     fine-tune what was pre-trained
"""
DEFAULTS: dict[str, Any] = {
    "model": "resnet20w24_cifar",
    "weights": "none",
    "method": "at",
    "attack": "one-step",
    "schedule": "cosine",
    "lr": 0.1,
    "weight_decay": 2e-4,  # small networks underfit under attack; the usual 5e-4 holds them back further
    "epochs": 30,
}
OF_ITS_SCHEDULE = {"warmup": 2}  # no default of the parser's: a default could not be told from what was asked for


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    return config_parser(
        formatter,
        description="Train a backbone adversarially from random weights on DATA. Its schedule, cosine, begins with two "
        "epochs of warm-up where --schedule-options.warmup gives no other number.",
        epilog=EPILOG,
        defaults=DEFAULTS,
    )


def execute(options: Namespace) -> None:
    """Run the command: the same engine as for fine-tuning, only the defaults differ."""
    shared(options.device, partial(_execute, options))


def _execute(options: Namespace, processes: Processes) -> None:
    from autolora.cli.summary import print_result
    from autolora.experiments.run import run

    config = processes.agree(partial(to_config, suited(options)))
    result = run(config, resume=options.resume, progress=bars(options), processes=processes)
    if processes.first and not options.quiet:
        print_result(result, "autolora fit PHOTOS --model {folder}")


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    return hint_for(NAME, suited(options))


def suited(options: Namespace) -> Namespace:
    """Add the warm-up of this command's own schedule, if that is the schedule; none of another's options is touched."""
    if options.schedule != DEFAULTS["schedule"]:
        return options
    given = OF_ITS_SCHEDULE | (options.schedule_options or {})
    return Namespace({**options, "schedule_options": given})  # type: ignore[no-untyped-call]
