"""``autolora fit``: robust fine-tuning on the user's own images."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import config_parser, to_config
from autolora.cli.options import resume_hint as hint_for

NAME = "fit"
HELP = "robust fine-tuning on your own images"
EPILOG = """examples:
  autolora fit photos/                                   AutoLoRa on the packaged backbone, Linf 8/255
  autolora fit photos.zip --model resnet18 --image-size 224
  autolora fit photos/ --method at --schedule cosine --epochs 30
  autolora fit photos/ --out runs/photos --resume        continue a run that stopped
  autolora fit --config runs/photos/config.yaml --out runs/again
"""


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    return config_parser(
        formatter, description="Fine-tune a pre-trained backbone into a robust classifier of DATA.", epilog=EPILOG
    )


def execute(options: Namespace) -> None:
    """Run the command."""
    from autolora.cli.summary import print_result
    from autolora.experiments.run import run

    result = run(to_config(options), resume=options.resume, progress=not options.quiet)
    if not options.quiet:
        print_result(result)


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    return hint_for(NAME, options)
