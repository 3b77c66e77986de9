"""What another protocol changes: the same runs under both, number by number."""

from __future__ import annotations

from autolora.errors import InputError
from autolora.experiments.suites.findings import Finding, Sample, adjusted, compare
from autolora.experiments.suites.table import Table


def protocol_effects(table: Table, other: Table) -> list[Finding]:
    """Test, for every number of a table, whether it is higher under another protocol; over seeds.

    Test images are not paired here: the two protocols' data are laid out differently.

    Args:
        table: Under one protocol.
        other: The same suite and scale under another.

    Raises:
        InputError: If the table holds no numbers of runs.
    """
    if table.suite.kind == "p-values" or not table.suite.trains:
        raise InputError(f"{table.suite.id} holds no numbers of runs; protocols are compared on tables that do")
    names = str(other.plan.protocol), str(table.plan.protocol)
    found = []
    for line, changed in zip(table.lines, other.lines, strict=True):
        where = ", ".join(line.labels.get(axis, "") for axis in table.axes)
        for metric, number in line.numbers.items():
            untested = Finding(f"{names[0]} gives more than {names[1]}", where, metric, names, higher=True)
            sides = (Sample(changed.numbers[metric].ours, {}), Sample(number.ours, {}))
            if all(side.values for side in sides):
                found.append(compare(untested, *sides))
    return adjusted(found)
