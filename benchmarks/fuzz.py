"""Thousands of inputs that a stranger could give the command line, damaged at random or meant to do harm.

Counted is what none may bring about: a traceback (or the name of an error of Python's, or a crash), a hang (20 seconds
of processor time for one input), a file written outside of the output folder, and code run that came with the input.
The inputs and the trial of one are those of tests/fuzz, where continuous integration tries a few.

OMP_NUM_THREADS=1 python benchmarks/fuzz.py [--inputs 1000] [--seed 0] [--kinds images runs]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fuzz"))

from hostile_cases import Case, Material
from hostile_inputs import KINDS, cases
from trials import Verdict, make_material, tried


def drawn(kind: str, material: Material, count: int, number: int) -> list[Case]:
    """Draw so many inputs of a kind."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(kind, material))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found[:count]


def described(verdict: Verdict) -> str:
    """Say in a few lines what happened, and for what input."""
    files = {name: data[:200] for name, data in verdict.case.files.items()}
    return f"{verdict.case.kind}: {' '.join(map(repr, verdict.case.argv))}\n  {files}\n  {verdict}"[:3000]


def main() -> None:
    """Try, count, print; exit with 1 if anything happened that may not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "material").mkdir()
        (root / "trial").mkdir()
        material = make_material(root / "material")
        print(
            f"{'kind':12} {'inputs':>7} {'accepted':>9} {'refused':>8}  tracebacks  hangs  outside  canaries  seconds"
        )
        for kind in options.kinds:
            started = time.perf_counter()
            inputs = drawn(kind, material, -(-options.inputs // len(options.kinds)), options.seed)
            count: Counter[str] = Counter()
            for verdict in tried(inputs, material, root / "trial"):
                count += Counter(
                    inputs=1,
                    accepted=int(verdict.code == 0),
                    refused=int(verdict.code in (1, 2)),
                    tracebacks=int(verdict.traceback),
                    hangs=int(verdict.hang),
                    outside=int(bool(verdict.outside)),
                    canaries=int(verdict.canary),
                )
                if not verdict.fine:
                    print(described(verdict), file=sys.stderr, flush=True)
            found += count
            print(_row(kind, count), f"{time.perf_counter() - started:8.0f}", flush=True)
    print(_row("all", found))
    sys.exit(1 if any(found[what] for what in ("tracebacks", "hangs", "outside", "canaries")) else 0)


def _row(kind: str, count: Counter[str]) -> str:
    return (
        f"{kind:12} {count['inputs']:7} {count['accepted']:9} {count['refused']:8}  {count['tracebacks']:10}  "
        f"{count['hangs']:5}  {count['outside']:7}  {count['canaries']:8}"
    )


if __name__ == "__main__":
    main()
