"""Short runs, killed with SIGKILL at random moments and resumed, against the uninterrupted ones, to the bit.

Each run is the command line in a process of its own, killed at a moment drawn uniformly from the time that it takes
once its folder is there (before, nothing can be lost), with checkpoints every fraction of a second. What counts are the
files that ship: weights, verdicts, metrics but for the clock. Evaluations are killed as often as training is; there it
is the verdicts.

OMP_NUM_THREADS=1 python benchmarks/kills.py [--kills 30] [--seed 0] [--of evaluation]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from autolora.cli import main as command_line
from autolora.experiments.run_folder import how_far

DATA = "digits --model resnet20_cifar --weights none --image-size 16 --epochs 2 --attack pgd-2 --label-fraction 0.25"
FIT = f"fit {DATA} --batch-size 40 --device cpu --precision fp32 --checkpoint-minutes 0.005 --quiet"
EVALUATE = "evaluate ../model --batch-size 16 --limit 160 --device cpu --quiet"
TRAINING = {
    "autolora": f"{FIT} --rank 2",
    "autolora, 2 workers": f"{FIT} --rank 2 --workers 2",
    "autolora, dual norms": f"{FIT} --rank 2 --method-options.statistics dual --schedule cosine",
    "twins-trades": f"{FIT} --method twins-trades --lr 0.001",
    "loft": f"{FIT} --method loft --rank 2",
}
EVALUATIONS = {
    "evaluate, pgd": f"{EVALUATE} --attack pgd-100",
    "evaluate, restarts": f"{EVALUATE} --attack pgd-20 --restarts 5",
    "evaluate, two radii": f"{EVALUATE} --attack pgd-50 --eps 2/255 --eps 8/255",
}
KINDS = {"training": TRAINING, "evaluation": EVALUATIONS}
RUNS = TRAINING | EVALUATIONS
CLOCK = ("second", "waiting")  # in the names of metrics that a clock has measured
SHIPPED = ("model/model.safetensors", "evaluation/verdicts.csv", "verdicts.csv")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["autolora.cli", "autolora.experiments.run", "autolora.experiments.evaluating"])


class Ended(NamedTuple):
    """How a process ended, how long its folder was there by then, and what it said."""

    code: int
    seconds: float
    said: str


def _command(argv: list[str], folder: Path) -> None:
    os.chdir(folder)
    os.dup2(os.open("said", os.O_WRONLY | os.O_TRUNC), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    if sys.platform == "linux":  # the processes that load images die with theirs, as those of the command line do
        multiprocessing.set_start_method("fork", force=True)
    command_line([*argv, "--out", "run"])


def execute(argv: Sequence[str], folder: Path, kill_after: float | None = None) -> Ended:
    """Run a command, and kill it so many seconds after its folder is there, if it still runs then."""
    (folder / "said").touch()  # it may be killed before it gets that far
    process = CONTEXT.Process(target=_command, args=(list(argv), folder))
    process.start()
    while process.is_alive() and not (folder / "run").exists():
        time.sleep(0.002)
    started = time.perf_counter()
    process.join(kill_after)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, time.perf_counter() - started, (folder / "said").read_text().strip())


def shipped(folder: Path) -> dict[str, object]:
    """Return what a finished run is compared by."""
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in SHIPPED if (folder / name).is_file()}
    if (folder / "metrics.jsonl").is_file():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found["metrics"] = [{k: v for k, v in row.items() if not any(word in k for word in CLOCK)} for row in rows]
    return found


def killed(argv: Sequence[str], folder: Path, whole: float) -> tuple[Path, float]:
    """Run until it is killed before its end; return where that was, and how long after its folder was there."""
    while True:
        moment = random.uniform(0, whole)
        folder.mkdir(parents=True)
        if execute(argv, folder, moment).code != 0:
            return folder, moment
        folder = folder.with_name(f"{folder.name}+")  # it was faster this time


def progress(folder: Path) -> str:
    """Say what a process that was killed has left."""
    shards = len(list(folder.rglob("0*.safetensors")))
    return how_far(folder) or (f"{shards} shards" if shards else "no checkpoint" if folder.exists() else "no file")


def where(root: Path, run_name: str) -> Path:
    """Return the folder of everything about one of the runs."""
    return root / run_name.replace(", ", "-").replace(" ", "-")


def uninterrupted(root: Path, kinds: Sequence[str]) -> tuple[dict[str, dict[str, object]], dict[str, float]]:
    """Do every run once; return what it ships, and the seconds that it takes."""
    expected, seconds = {}, {}
    wanted = {"autolora", *(run_name for kind in kinds for run_name in KINDS[kind])}  # the one is what is evaluated
    for run_name, line in ((name, line) for name, line in RUNS.items() if name in wanted):
        folder = where(root, run_name) / "whole"
        folder.mkdir(parents=True)
        if run_name in EVALUATIONS:
            (folder.parent / "model").symlink_to(where(root, "autolora") / "whole" / "run")
        ended = execute(line.split(), folder)
        assert ended.code == 0, ended.said
        expected[run_name], seconds[run_name] = shipped(folder / "run"), ended.seconds
    return expected, seconds


def main() -> None:
    """Kill, resume and compare; print a line per kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of training, and as many of evaluations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", nargs="+", choices=KINDS, default=list(KINDS), help="what is killed")
    options = parser.parse_args()
    random.seed(options.seed)
    identical: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        expected, seconds = uninterrupted(root, options.of)
        print(f"{'run':22} {'works':>7}  {'killed at':>9}  {'what there was then':32} resumed")
        for kind in options.of:
            runs = KINDS[kind]
            for number in range(options.kills):
                run_name = list(runs)[number % len(runs)]
                argv = runs[run_name].split()
                folder, moment = killed(argv, where(root, run_name) / str(number), seconds[run_name])
                found = progress(folder / "run")
                ended = execute([*argv, "--resume"], folder)
                same = ended.code == 0 and shipped(folder / "run") == expected[run_name]
                identical[kind] += same
                verdict = "identical" if same else f"DIFFERENT ({ended.code}: {ended.said})"
                print(f"{run_name:22} {seconds[run_name]:6.1f}s  {moment:8.2f}s  {found:32} {verdict}", flush=True)
            print(f"{kind}: {identical[kind]} of {options.kills} resumed runs ended with identical files", flush=True)
    sys.exit(0 if identical.total() == len(options.of) * options.kills else 1)


if __name__ == "__main__":
    main()
