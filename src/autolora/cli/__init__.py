"""The command ``autolora``: one subcommand per file, errors in one line, exit codes that scripts can rely on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from autolora.cli import compare, evaluate, fit, listings, params, pretrain, quickstart
from autolora.cli.messages import one_line
from autolora.cli.options import WITH_PRESETS, config_first
from autolora.errors import InputError

COMMANDS = {
    module.NAME: module for module in (quickstart, fit, pretrain, evaluate, compare, params, *listings.COMMANDS)
}
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

EPILOG = """examples:
  autolora quickstart                     handwritten digits, offline, in two minutes
  autolora fit photos/                    a robust classifier of your own images
  autolora fit photos.zip --out runs/a    the same, from an archive, into a folder of your choice
  autolora fit --help                     all options
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed while running, 2 a mistake in the command, 130 interrupted."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run the command line; return the exit code."""
    options = _parse(argv)
    if isinstance(options, int):
        return options
    command = COMMANDS[options.command]
    _configure_logging(quiet=options[options.command].get("quiet", False))
    try:
        command.execute(options[options.command])
    except InputError as error:
        return _fail(USAGE, error)
    except KeyboardInterrupt:
        hint = command.resume_hint(options[options.command])
        return _fail(INTERRUPTED, f"interrupted{hint}")
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        return _fail(FAILED, _unexpected(error))
    return OK


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="autolora",
        description="Turn a pre-trained vision backbone into an adversarially robust classifier for your own images.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=_formatter(),
        version=_version(),
    )
    commands = parser.add_subcommands(required=True, dest="command", title="commands", metavar="COMMAND")
    for name, module in COMMANDS.items():
        commands.add_subcommand(name, module.parser(_formatter()), help=module.HELP)
    return parser


def _options() -> dict[str, list[str]]:
    """Names of the options by command."""
    named = {name: list(module.parser(_formatter()).get_defaults().keys()) for name, module in COMMANDS.items()}
    return {name: [*options, "preset"] if name in WITH_PRESETS else options for name, options in named.items()}


def _parse(argv: list[str]) -> Namespace | int:
    """Return the options, or the exit code if there is nothing more to do."""
    if not argv:
        argv = ["--help"]
    try:
        return _parser().parse_args(config_first(argv))
    except SystemExit as done:  # --help, --version and --print_config
        return int(done.code or 0)
    except InputError as error:
        return _fail(USAGE, error)
    except Exception as error:  # jsonargparse raises argparse's, YAML's and its own
        return _fail(USAGE, one_line(str(error), argv, _options()))


def _formatter() -> Any:
    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        """Keep the line breaks of the worked examples."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if not text.startswith("examples:"):
                return super()._fill_text(text, width, indent)
            return "".join(indent + line for line in text.splitlines(keepends=True))

    return Formatter


def _version() -> str:
    from importlib.metadata import version

    return version("autolora")


def _configure_logging(*, quiet: bool) -> None:
    """Show the package's messages on stderr, above any progress bar; other libraries only when something is wrong."""
    from tqdm import tqdm

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(self.format(record), file=sys.stderr)

    logging.basicConfig(level=logging.ERROR, format="%(message)s", handlers=[Handler()], force=True)
    logging.getLogger("autolora").setLevel(logging.WARNING if quiet else logging.INFO)
    for noisy in ("huggingface_hub", "timm", "httpx"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _unexpected(error: Exception) -> str:
    if logging.getLogger("autolora").isEnabledFor(logging.DEBUG):
        raise error
    text = " ".join(str(error).split()) or "no message"
    return text if type(error).__name__ == "TrainingError" else f"{type(error).__name__}: {text}"


def _fail(code: int, message: object) -> int:
    print(f"autolora: {' '.join(str(message).split())}", file=sys.stderr)
    return code
