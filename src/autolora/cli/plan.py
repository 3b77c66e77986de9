"""``autolora plan``: what a run and AutoAttack will take, before any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import bars, config_parser, to_config
from autolora.experiments.config import RunConfig
from autolora.experiments.planning.words import duration, parse_duration

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.planning.checking import Check
    from autolora.experiments.planning.forecast import Forecast, Item

NAME = "plan"
HELP = "how long training and AutoAttack will take, measured before"
EPILOG = """examples:
  autolora plan photos/                                  what `autolora fit photos/` will take
  autolora plan photos.zip --model resnet18 --image-size 224 --epochs 20
  autolora plan photos/ --attack one-step                what a cheaper training attack would take
  autolora plan photos/ --budget 30m                     how many test images AutoAttack does in half an hour
  autolora plan runs/photos                              a finished run: how far off is the forecast of it?
  autolora plan photos/ --json                           for machines
"""
TITLES = {
    "preparing": "data and model",
    "compiling": "compiling",
    "training": "training",
    "measuring": "measured by the method",
    "validation": "validation, natural and PGD-10",
    "checkpoints": "checkpoints",
    "gradient-similarity": "gradient similarity",
    "test": "test images, natural and PGD-10",
}


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = config_parser(
        formatter,
        description="Measure a few steps of what `autolora fit` would do with DATA, and forecast time and memory. "
        "DATA may be the folder of a finished run: then the forecast is compared with what the run took.",
        epilog=EPILOG,
        resumable=False,
    )
    parser.add_argument("--budget", type=str, default="1h", help="time that AutoAttack may take: 30m, 2h, 1h30m, 1d")
    parser.add_argument("--json", action="store_true", help="for machines: an object with all seconds and counts")
    return parser


def execute(options: Namespace) -> None:
    """Run the command."""
    from autolora.cli.summary import print_next
    from autolora.experiments.plan import run_plan

    config = to_config(options)
    forecast, check = run_plan(config, parse_duration(options.budget), progress=bars(options))
    if options.json:
        content = forecast.as_json() | ({} if check is None else {"check": check.as_json()})
        print(json.dumps(content, indent=2, allow_nan=False))
    elif not options.quiet:
        found = [] if check is None else _checked(check)
        print("\n".join([*_fit(forecast), *_autoattack(forecast), *_cheaper(forecast), *found, ""]))
        print_next(*(_training(config) if check is None else _judging(config, forecast)))


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""


def _fit(forecast: Forecast) -> Iterator[str]:
    from autolora.experiments.planning.advice import dominant

    config, sizes, machine = forecast.config, forecast.sizes, forecast.environment
    where = f"{machine['device']}, {machine['threads']} threads, {machine['precision']}"
    yield f"\nForecast from three steps measured on this machine ({where}); other work on it changes the result.\n"
    yield (
        f"fit: {config.method} with {forecast.network}, {sizes.epochs} epochs of {sizes.steps} steps of {sizes.batch} "
        f"images; {sizes.val} validation and {sizes.test} test images\n"
    )
    whole = forecast.seconds()
    for item in forecast.items():
        yield _line(TITLES[item.name], item.seconds, item.seconds / whole, item.mib, _counted(item))
    yield _line("in all, at most", whole, 1.0, forecast.mib, f"{duration(forecast.epoch_seconds())} an epoch")
    yield (
        f"\n  Most of it is {TITLES[dominant(forecast)]}; {forecast.attack_share:.0%} of a training step makes "
        "adversarial images."
    )
    if config.schedule == "auto":
        yield "  The automatic schedule may stop before the last epoch."
    yield f"  Largest batch that fits and leaves steps enough: {forecast.largest_batch} (--batch-size auto)."


def _autoattack(forecast: Forecast) -> Iterator[str]:
    from autolora.experiments.planning.forecast import VERSIONS

    costs, test, budget = forecast.version("standard"), forecast.sizes.test, duration(forecast.budget)
    yield f"\nAutoAttack on all {test} test images, at most: an image that falls costs nothing from then on\n"
    for name, part in costs.parts.items():
        passes = f"{part.passes.forwards:,} forwards, {part.passes.backwards:,} backwards an image"
        yield _line(name, test * part.each, part.each / costs.each, None, passes)
    for version in VERSIONS:
        costs = forecast.version(version)
        title = "in all" if version == "standard" else "fast: the first two attacks"
        share = costs.each / forecast.version("standard").each
        yield _line(title, test * costs.each, share, costs.mib, f"{1000 * costs.each:,.0f} ms an image")
    for version, name in zip(VERSIONS, ("AutoAttack does", "its fast version does"), strict=True):
        subset = forecast.subset(version)
        images = f"all {subset.total}" if subset.images == subset.total else f"{subset.images} of {subset.total}"
        sure = "" if subset.uncertainty is None else f": 95 % interval ± {100 * subset.uncertainty:.1f} points at most"
        yield f"{'' if version == 'fast' else chr(10)}  In {budget} {name} {images} test images{sure}."


def _cheaper(forecast: Forecast) -> Iterator[str]:
    from autolora.experiments.planning.advice import advice

    yield "\nCheaper:\n"
    for option in advice(forecast):
        yield f"  {option.option:<22}  {option.effect}"


def _checked(check: Check) -> Iterator[str]:
    record = check.record
    yield f"\nChecked against {record.folder}, which trained {record.epochs} epochs:\n"
    for title, told, took, error in (
        ("an epoch", check.epoch_seconds, record.epoch_seconds, check.epoch_error),
        ("the whole run", check.seconds, record.seconds, check.error),
    ):
        yield f"  {title:<14}  forecast {duration(told):>10}, recorded {duration(took):>10}: {error:+.1%}"
    for difference in check.differences:
        yield f"  not as it was then: {difference}"


def _training(config: RunConfig) -> tuple[list[str], str]:
    """Return the command that was forecast, with the options that were given."""
    from autolora.experiments.suites.commands import flags

    given = {item.name: getattr(config, item.name) for item in fields(config) if item.name != "data"}
    changed = {item.name: given[item.name] for item in fields(config)[1:] if given[item.name] != item.default}
    return ["autolora", "fit", config.data, *flags(changed)], "what was forecast"


def _judging(config: RunConfig, forecast: Forecast) -> tuple[list[str], str]:
    """Return the evaluation of a finished run that the budget allows."""
    subset, budget = forecast.subset("standard"), duration(forecast.budget)
    if subset.images == subset.total:
        return ["autolora", "evaluate", config.data], f"AutoAttack on all test images, in {budget} or less"
    if not subset.images:
        return ["autolora", "evaluate", config.data, "--fast"], "the first two attacks of AutoAttack"
    words = ["autolora", "evaluate", config.data, "--limit", str(subset.images)]
    return words, f"AutoAttack on as many test images as {budget} allows"


def _counted(item: Item) -> str:
    if item.unit == "time" or not item.count:
        return f"{item.count} times" if item.count > 1 else ""
    each = item.seconds / item.count
    return f"{item.count:,} {item.unit}s of " + (f"{1000 * each:.3g} ms" if each < 1 else f"{each:.3g} s")


def _line(title: str, seconds: float, share: float, mib: float | None, counted: str) -> str:
    memory = "" if mib is None else f"{mib:,.0f} MiB"
    return f"  {title:<31}  {duration(seconds):>12}  {share:>6.1%}  {memory:>10}  {counted}".rstrip()
