"""What goes wrong on the way, in a user's words: what happened, what is kept, how to go on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from traceback import walk_tb

from autolora.data import UnreadableImage
from autolora.errors import InputError, RunError
from autolora.experiments.result import write_atomically
from autolora.experiments.run_folder import how_far, resume_command
from autolora.training import LoadingError, TrainingError
from autolora.training.draws import WorkerDied
from autolora.training.update import out_of_memory

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
SUSPECTS = "not-finite.txt"


GoOn = Callable[[str], str]  # what to do first, to the sentence that says how to go on then


@contextmanager
def explained(folder: Path, go_on: GoOn | None = None) -> Iterator[None]:
    """Turn a fault in a run into an error of one line. Mistakes of the user, and what is explained already, pass.

    Args:
        folder: Where the run writes.
        go_on: Says how to go on; None does so for a training run.

    Raises:
        RunError: For what is known to go wrong on machines: disks, memory, images, worker processes.
    """
    go_on = go_on or partial(_go_on, folder)
    try:
        yield
    except UnreadableImage as error:
        raise RunError(f"{error.name} can no longer be read ({error.reason}); {go_on('put it back')}") from error
    except WorkerDied as error:
        raise RunError(_of_worker(error, go_on)) from error
    except LoadingError as error:
        raise RunError(f"{error}; {go_on('mend that')}") from error
    except TrainingError as error:
        raise RunError(f"{error}{_suspects(folder, error)}; {_kept(folder)}") from error
    except (InputError, RunError):
        raise
    except (OSError, EOFError) as error:
        if isinstance(error, (ConnectionError, EOFError)) and _between_processes(error):
            raise RunError(_of_worker(WorkerDied(error), go_on)) from error
        if isinstance(error, EOFError):
            raise
        raise RunError(_of_disk(error, folder, go_on)) from error
    except (RuntimeError, MemoryError) as error:
        if (reason := _of_machine(error, go_on)) is None:
            raise
        raise RunError(reason) from error


def _of_disk(error: OSError, folder: Path, go_on: GoOn) -> str:
    where = error.filename or folder
    if error.errno in FULL:
        return f"no space left on the disk of {folder}; nothing is half written; {go_on('make room')}"
    if error.errno in FORBIDDEN:
        return f"{where} cannot be written ({error.strerror}); {go_on('allow that, or name another --out')}"
    return f"{where}: {error.strerror or error}; {go_on('mend that')}"


def _of_worker(error: WorkerDied, go_on: GoOn) -> str:
    return f"{error}; {go_on('see that there is memory')}"


def _between_processes(error: BaseException) -> bool:
    """Say whether an error came up where two processes of this machine hand something over."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    return any(name.startswith(("multiprocessing.", "torch.multiprocessing.")) for name in modules)


def _of_machine(error: RuntimeError | MemoryError, go_on: GoOn) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or out_of_memory(error):
        return f"out of memory; {go_on('make room for it')}, or start anew with a lower --batch-size"
    if (died := WorkerDied.by(error)) is not None:
        return _of_worker(died, go_on)
    if "deterministic" in text:
        return f"--deterministic cannot be kept up by this model on this device: {text.split('.')[0]}; leave it out"
    return None


def _go_on(folder: Path, first: str) -> str:
    where = how_far(folder)
    if where is None:
        return f"{first}, and start again"
    return f"the run is kept {where}: {first}, then continue with: {resume_command(folder)}"


def _kept(folder: Path) -> str:
    where = how_far(folder)
    return f"the last good state, {where}, is in {folder / 'checkpoints'}" if where else "nothing was kept of it yet"


def _suspects(folder: Path, error: TrainingError) -> str:
    """Name the images of the batch that went wrong; all of them in a file."""
    if not error.images:
        return ""
    path = folder / SUSPECTS
    more = f" and {len(error.images) - 2} more" if len(error.images) > 2 else ""
    with suppress(OSError):
        write_atomically(path, "".join(f"{name}\n" for name in error.images))
        more = f"{more} (all are listed in {path})"
    return f"; it holds {', '.join(error.images[:2])}{more}"
