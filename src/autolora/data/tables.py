"""A table of paths and labels: a ``.csv`` with the columns ``path,label[,split]``."""

import csv
import os
from pathlib import Path

from autolora.data.layout import SPLIT_NAMES, Split, Tree, tree_from
from autolora.data.sources import File, FileSource, printable
from autolora.errors import InputError

SUFFIX = ".csv"
PATH, LABEL, SPLIT = "path", "label", "split"


def table_tree(table: Path) -> Tree:
    """Return the images in a table, in its order; classes are in the order of their names.

    Paths are relative to the table's folder, or absolute. ``split`` is train, val or test; without that column the
    splits are made as for class folders.

    Raises:
        InputError: a column is missing, or a line has no label, no image, an unknown split, or that of another line.
    """
    rows = read(table)
    names = sorted({row[LABEL] for _, row in rows})
    splits: dict[Split, dict[str, list[File]]] = {}
    seen: dict[str, int] = {}
    for line, row in rows:
        split = split_of(table, line, row)
        path, shown = os.path.abspath(table.parent / row[PATH]), printable(row[PATH])
        if path in seen:
            raise InputError(f"{table}, line {line}: {shown} is in line {seen[path]} already; keep one of the two")
        seen[path] = line
        if not os.path.isfile(path):
            raise InputError(
                f"{table}, line {line}: there is no file {shown}; paths count from {table.parent} unless absolute"
            )
        classes = splits.setdefault(split, {name: [] for name in names})
        parts = (split, *row[PATH].replace("\\", "/").split("/"))
        classes[row[LABEL]].append(File(parts, FileSource(path, Path(path).absolute())))
    return tree_from(str(table), splits)


def read(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the lines with their numbers, blanks around values removed."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:  # -sig: Excel puts a mark in front
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            check_columns(table, columns)
            reader.fieldnames = columns
            rows = [(reader.line_num, checked(table, reader.line_num, row)) for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{table} cannot be read as a table ({error}); save it as comma-separated UTF-8") from error
    if not rows:
        raise InputError(f"{table} has no lines below its header; add a line {PATH},{LABEL} for each image")
    return rows


def check_columns(table: Path, columns: list[str]) -> None:
    """Refuse a header without the columns that are needed."""
    for name in (PATH, LABEL):
        if columns.count(name) != 1:
            raise InputError(
                f"{table} has {columns.count(name) or 'no'} columns {name!r} in its first line "
                f"({printable(', '.join(columns)[:80]) or 'empty'}); begin it with {PATH},{LABEL}[,{SPLIT}]"
            )


def checked(table: Path, line: int, row: dict[str, str | None]) -> dict[str, str]:
    """Return a line of which each needed column has a value."""
    values = {name: (row.get(name) or "").strip() for name in (PATH, LABEL, SPLIT)}
    for name in (PATH, LABEL):
        if not values[name] or "\0" in values[name]:
            raise InputError(f"{table}, line {line}: the column {name} is empty or no text; fill it or remove the line")
    if SPLIT in row and not values[SPLIT]:
        raise InputError(f"{table}, line {line}: the column {SPLIT} is empty; write train, val or test")
    return values


def split_of(table: Path, line: int, row: dict[str, str]) -> Split:
    """Return the split that a line names; train where the table has no such column."""
    if not row[SPLIT]:
        return "train"
    split = SPLIT_NAMES.get(row[SPLIT].lower())
    if split is None:
        raise InputError(f"{table}, line {line}: the split {row[SPLIT]!r:.40} is unknown; write train, val or test")
    return split
