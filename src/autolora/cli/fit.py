"""``autolora fit``: robust fine-tuning on the user's own images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import bars, config_parser, to_config
from autolora.cli.options import resume_hint as hint_for
from autolora.cli.sharing import shared

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.processes import Processes

NAME = "fit"
HELP = "robust fine-tuning on your own images"
EPILOG = """examples:
  autolora fit photos/                                   AutoLoRa on the packaged backbone, Linf 8/255
  autolora fit photos.zip --model resnet18 --image-size 224
  autolora fit photos/ --method at --schedule cosine --epochs 30
  autolora fit photos/ --out runs/photos --resume        continue a run that stopped
  autolora fit --config runs/photos/config.yaml --out runs/again
  torchrun --nproc-per-node 2 -m autolora fit photos/    two processes share every batch
"""


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    return config_parser(
        formatter, description="Fine-tune a pre-trained backbone into a robust classifier of DATA.", epilog=EPILOG
    )


def execute(options: Namespace) -> None:
    """Run the command. Of several processes that share it, the first speaks for all."""
    shared(options.device, partial(_execute, options))


def _execute(options: Namespace, processes: Processes) -> None:
    from autolora.cli.summary import print_result
    from autolora.experiments.run import run

    config = processes.agree(partial(to_config, options))
    result = run(config, resume=options.resume, progress=bars(options), processes=processes)
    if processes.first and not options.quiet:
        print_result(result, "autolora report {folder}   # one page with everything about the run")


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    return hint_for(NAME, options)
