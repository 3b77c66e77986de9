"""Does precision move the result? Finished models searched in bf16 and in fp32, and one recipe trained in both.

search: each model is attacked twice, with a search in either precision; verdicts are taken in float32 both times, and
are paired image by image. train: runs that differ in nothing but --precision, paired by seed; runs that are in --out
already are kept, and those that stopped are continued, so that the command can be given again.

python benchmarks/precision.py search RUN... [--data DATA] [--attacks pgd-10 apgd-ce] [--limit N]
python benchmarks/precision.py train DATA [--options FILE.yaml] [--seeds 0 6 66] [--epochs N] [--out runs/precision]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml
from measuring import described, write
from torch import Tensor

from autolora import finetune
from autolora.attacks.autoattack.apgd import APGD
from autolora.data import ImageSet, loader
from autolora.evaluation import Discordance, TTest, paired_t_test, verdicts
from autolora.experiments.assessment import EVALUATION_SEED, evaluation_attack, evaluation_batch
from autolora.experiments.evaluating import sample
from autolora.experiments.result import METRICS, RESULT, RunResult
from autolora.experiments.searching import victim_of
from autolora.experiments.subject import find_subject
from autolora.models import RobustModel
from autolora.models.folding import Folding
from autolora.threat import ThreatModel
from autolora.training.precision import autocast_for, resolve_device, resolve_precision

HIGH = "fp32"
SCORES = ("natural", "pgd-10")


def standing(name: str, model: RobustModel, images: ImageSet, threat: ThreatModel, precision: str) -> Tensor:
    """Say which images (N,) the model gets right, in float32, after an attack that searched in a precision."""
    device = next(model.parameters()).device
    size = evaluation_batch(model.architecture.network_size[-1])
    batches = [(x.to(device), y.to(device)) for x, y in loader(images, size)]
    if name == "pgd-10":  # as robust validation searches
        attack, through = evaluation_attack(threat), partial(_searching, model, precision)
        return verdicts(model, batches, attack, searching=through).correct & verdicts(model, batches).correct
    victim, apgd, found = victim_of(model, precision), APGD(threat), []  # as the first part of AutoAttack does
    for number, (x, y) in enumerate(batches):
        generator = torch.Generator(device).manual_seed(EVALUATION_SEED + number)
        found.append(~apgd(victim, x, y, generator)[1])
    return torch.cat(found).cpu()


@contextmanager
def _searching(model: RobustModel, precision: str) -> Iterator[None]:
    autocast = autocast_for(precision, next(model.parameters()).device)
    with autocast(), model.running(Folding(model.backbone).network(model.backbone)):
        yield


def search(options: argparse.Namespace, low: str) -> list[dict[str, Any]]:
    """Attack every model with a search in either precision, and print what differs; the images are the same."""
    device, rows, pooled = resolve_device(options.device), [], dict[str, list[Discordance]]()
    for name in options.runs:
        subject = find_subject(name, data=options.data, data_root=options.data_root, progress=False)
        model, run = subject.model.to(device), subject.config
        model.to(memory_format=torch.channels_last)
        threat = ThreatModel(run.eps, run.norm) if run is not None else ThreatModel("8/255")
        images = subject.images.subset(sample(subject.images, options.limit, 0))
        for attack in options.attacks:
            high, other = (standing(attack, model, images, threat, precision) for precision in (HIGH, low))
            pair = Discordance(int((other & ~high).sum()), int((high & ~other).sum()), len(high))
            pooled.setdefault(attack, []).append(pair)
            counts = {HIGH: int(high.sum()), low: int(other.sum())}
            print(f"{Path(name).name:16} {attack:8} {_pair(counts, pair, low)}", flush=True)
            rows.append({"run": Path(name).name, "attack": attack, "correct": counts, **asdict(pair)})
    for attack, pairs in pooled.items():
        points = [100 * pair.difference for pair in pairs]
        span = f"from {min(points):+.2f} to {max(points):+.2f} points, mean {fmean(points):+.3f}"
        print(f"{attack}, {len(points)} models: {low} less {HIGH} {span}")
    return rows


def _pair(correct: dict[str, int], pair: Discordance, low: str) -> str:
    shares = ", ".join(f"{name} {count / pair.total:.2%}" for name, count in correct.items())
    interval = ", ".join(f"{100 * bound:+.2f}" for bound in pair.ci95)
    differ = f"{pair.only_first + pair.only_second} of {pair.total} verdicts differ"
    return f"{shares}, {low} {100 * pair.difference:+.2f} points [{interval}], {differ}"


def train(options: argparse.Namespace, low: str) -> dict[str, Any]:
    """Train in both precisions with every seed, and print the scores and what the differences say."""
    recipe = yaml.safe_load(Path(options.options).read_text(encoding="utf-8")) if options.options else {}
    recipe |= {"data": options.data, "device": options.device, "track": "none"}
    recipe |= {name: value for name in ("epochs", "model", "schedule") if (value := getattr(options, name)) is not None}
    runs = {
        (seed, precision): _run(recipe, seed, precision, Path(options.out))
        for seed in options.seeds
        for precision in (HIGH, low)
    }
    found: dict[str, Any] = {"recipe": recipe, "seeds": options.seeds, "scores": {}}
    for metric in SCORES:
        scores = {p: [runs[seed, p].accuracy(metric) for seed in options.seeds] for p in (HIGH, low)}
        test = paired_t_test(scores[low], scores[HIGH])
        print(f"{metric:8} {_means(scores)}, {low} less {HIGH} {_difference(test)}")
        found["scores"][metric] = scores | {"test": None if test is None else asdict(test) | {"ci95": test.ci95}}
    last = {p: [_last(runs[seed, p]) for seed in options.seeds] for p in (HIGH, low)}
    found["last_epoch_val_robust"] = last
    test = paired_t_test(last[low], last[HIGH])
    print(f"robust validation of the last epoch, {_means(last)}, {low} less {HIGH} {_difference(test)}")
    seconds = {p: [runs[seed, p].content["seconds"] for seed in options.seeds] for p in (HIGH, low)}
    return found | {"seconds": seconds}


def _run(recipe: dict[str, Any], seed: int, precision: str, folder: Path) -> RunResult:
    """Return the run of a seed and a precision, which is trained unless it is there."""
    out = folder / f"{precision}-{seed}"
    if not (out / RESULT).is_file():
        finetune(**recipe, seed=seed, precision=precision, out=out, resume=out.exists(), progress=False)
    result = RunResult.read(out)
    shares = ", ".join(f"{metric} {result.accuracy(metric):.2%}" for metric in SCORES)
    epoch, seconds = result.content["selection"]["epoch"], result.content["seconds"]
    print(f"seed {seed:3} {precision:5} {shares}, epoch {epoch}, {seconds:.0f} s", flush=True)
    return result


def _last(result: RunResult) -> float:
    """Return the robust validation accuracy of the last epoch, which no selection has touched."""
    rows = (result.folder / METRICS).read_text(encoding="utf-8").splitlines()
    return float(json.loads(rows[-1])["val_robust"])


def _means(scores: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {100 * fmean(values):.2f}" for name, values in scores.items())


def _difference(test: TTest | None) -> str:
    if test is None:
        return "the same with every seed, or one seed alone"
    low, high = (100 * bound for bound in test.ci95)
    return f"{100 * test.difference:+.2f} points, 95 % interval [{low:+.2f}, {high:+.2f}], p = {test.p:.2g}"


def main() -> None:
    """Measure what is asked for, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--low", default="auto", help="the precision beside fp32 (default: what --precision auto is)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="file for what was measured, and the machine")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("search")
    one.add_argument("runs", nargs="+", metavar="RUN")
    one.add_argument("--data", help="images, if not those that the runs name")
    one.add_argument("--data-root")
    one.add_argument("--attacks", nargs="+", choices=["pgd-10", "apgd-ce"], default=["pgd-10"])
    one.add_argument("--limit", type=int, help="images of a stratified sample (default: all)")
    one.set_defaults(measure=search)
    other = commands.add_parser("train")
    other.add_argument("data")
    other.add_argument("--options", help="YAML file with the options of `autolora fit`")
    other.add_argument("--model")
    other.add_argument("--epochs", type=int)
    other.add_argument("--schedule")
    other.add_argument("--seeds", type=int, nargs="+", default=[0, 6, 66])
    other.add_argument("--out", default="runs/precision")
    other.set_defaults(measure=train)
    options = parser.parse_args()
    device = resolve_device(options.device)
    low = resolve_precision(options.low, device)
    if low == HIGH:
        parser.error("this machine computes in fp32; name the other precision with --low bf16")
    write(options.json, {"machine": described(device, low), "found": options.measure(options, low)})


if __name__ == "__main__":
    main()
