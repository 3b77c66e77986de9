"""``autolora serve``: a local page to try models under attack."""

from __future__ import annotations

import socket
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.config_files import runs_given
from autolora.cli.options import add_common, bars
from autolora.errors import InputError

NAME = "serve"
HELP = "a page on this machine to attack images yourself"
EPILOG = """examples:
  autolora serve runs/photos                             then open http://127.0.0.1:8765
  autolora serve runs/photos-autolora runs/photos-ft     two models side by side
  autolora serve runs/photos --port 0                    any port that is free
  autolora serve runs/photos --data elsewhere/photos.zip
"""
HOST = "127.0.0.1"  # and no option: whoever reaches the page can use the machine
PORT = 8765


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Open a page on this machine: choose a test image or upload one, say how strong the adversary is, "
        "and see what the models take it for, clean and attacked, side by side. Nobody else can reach it.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    parser.add_argument("runs", nargs="*", type=str, default=[], metavar="RUN", help="finished runs, one or more")
    parser.add_argument("--port", type=int, default=PORT, help="where to listen on this machine; 0: any that is free")
    parser.add_argument(
        "--data", type=str | None, default=None, help="where the images are (default: as the run's configuration says)"
    )
    parser.add_argument(
        "--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="where to compute: auto, cpu or cuda"
    )
    add_common(parser)
    return parser


def execute(options: Namespace) -> None:
    """Run the command, until it is interrupted."""
    from autolora.training.precision import resolve_device

    try:
        import uvicorn

        from autolora.serve.application import application
    except ModuleNotFoundError as error:
        raise InputError(
            f"autolora serve needs the package {error.name}, which is not there: pip install '.[serve]' in a "
            "clone, or uv sync --extra serve"
        ) from None
    from autolora.serve.playground import open_playground

    device = resolve_device(options.device)
    with _listening(options.port) as listener:
        playground = open_playground(runs_given(options), data=options.data, device=device, progress=bars(options))
        config = uvicorn.Config(application(playground), log_level="error", access_log=False, server_header=False)
        print(f"serving http://{HOST}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: it is how this command ends."""
    return ""


def _listening(port: int) -> socket.socket:
    """Listen on this machine's own address, which no other machine can reach."""
    if not 0 <= port < 2**16:
        raise InputError(f"--port {port}: a port is a number from 0 to 65535; 0 takes one that is free")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"--port {port} cannot be used ({reason.lower()}); --port 0 takes one that is free") from None
