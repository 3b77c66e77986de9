"""WebDataset shards, as ``wds:PATH`` or ``wds:URL``: tar files in which the files of a sample share their name.

They are read in place with the tar reader of archives, without the package ``webdataset``. That streams shards past a
shuffle buffer; here every image is looked at before anything else happens, splits are stratified by class, and verdicts
belong to images that can be found again, so images must be counted and addressed one by one. A tar gives that.

A sample is an image and its class: ``0001.jpg`` beside ``0001.cls`` (a number or a name), or beside ``0001.json`` with
a ``label`` or ``cls``. Shards are a folder of ``.tar``, a pattern with braces (``train-{000..012}.tar``), a list of
those with ``::`` between, or URLs of them; ``train``, ``val`` and ``test`` in their names, or as the name of their
folder, say what they are for.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from autolora.data.archives import list_archive
from autolora.data.decoding import IMAGE_SUFFIXES
from autolora.data.layout import SPLIT_NAMES, Split, Tree, tree_from
from autolora.data.sources import File, Source
from autolora.errors import InputError

PREFIX = "wds:"
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_SHARDS = 100_000
LONGEST_LABEL = 2**16  # bytes; a .json beside an image may hold more than its class


def shards_tree(data: str, root: Path) -> Tree:
    """Return the images of ``PATH``, ``URL``, or several with ``::`` between; shards from the web are kept in ``root``.

    Raises:
        InputError: a shard is missing or damaged, a sample has no class, or the shards' splits cannot be told.
    """
    shards = [shard for pattern in data.split("::") for shard in expanded(pattern, root)]
    by_split: dict[Split, dict[str, list[File]]] = {}
    twin = next((shard for index, shard in enumerate(shards) if shard in shards[:index]), None)
    if twin is not None:
        raise InputError(f"{PREFIX}{data} names the shard {twin} twice; name each once")
    named = {shard: split_of(shard) for shard in shards}
    if None in named.values() and set(named.values()) != {None}:
        unclear = next(shard for shard, split in named.items() if split is None)
        raise InputError(
            f"{PREFIX}{data}: {unclear.name} does not say which split it is of, and others do; "
            "put train, val or test into the name of each shard or of its folder, or of none"
        )
    for shard, given in named.items():
        split = given or "train"
        for name, file in samples(shard, split):
            by_split.setdefault(split, {}).setdefault(name, []).append(file)
    names = sorted({name for classes in by_split.values() for name in classes}, key=in_order)
    splits = {split: {name: classes.get(name, []) for name in names} for split, classes in by_split.items()}
    return tree_from(f"{PREFIX}{data}", splits)


def in_order(name: str) -> tuple[bool, int, str]:
    """Return what sorts numbers by value, and names behind them."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def expanded(pattern: str, root: Path) -> list[Path]:
    """Return the shards that a pattern stands for, downloaded if need be."""
    scheme = urlsplit(pattern).scheme if "://" in pattern else ""
    if pattern.startswith("pipe:"):
        raise InputError(f"{PREFIX}{pattern}: pipe: runs a command, which is not done here; give the tar files")
    if scheme not in ("", "http", "https"):
        raise InputError(
            f"{PREFIX}{pattern}: {scheme}:// is not read here; copy the shards to disk and give their path"
        )
    names = braces(pattern)
    if scheme:
        return [fetched(name, root) for name in names]
    paths = [Path(name).expanduser() for name in names]
    if len(paths) == 1 and paths[0].is_dir():
        inside = sorted(path for path in paths[0].rglob("*.tar") if path.is_file())
        if not inside:
            raise InputError(f"{PREFIX}{pattern} has no shards NAME.tar in it; give their folder or a pattern of them")
        return inside
    for path in paths:
        if not path.is_file():
            raise InputError(f"{PREFIX}{pattern}: there is no shard {path}; check the path and the numbers in braces")
    return paths


def braces(pattern: str) -> list[str]:
    """Return what ``{000..012}`` and ``{a,b}`` stand for, as a shell has it."""
    found = BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = RANGE.fullmatch(found[1])
    if numbers is None:
        choices = found[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if not first <= last < first + MOST_SHARDS:
            raise InputError(f"{PREFIX}{pattern}: {found[0]} is no ascending range of up to {MOST_SHARDS:,} shards")
        choices = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    rest = braces(pattern[found.end() :])
    names = [f"{pattern[: found.start()]}{choice}{end}" for choice in choices for end in rest]
    if len(names) > MOST_SHARDS:
        raise InputError(f"{PREFIX}{pattern} stands for {len(names):,} shards, more than {MOST_SHARDS:,}")
    return names


def fetched(url: str, root: Path) -> Path:
    """Return the shard at ``url``, downloaded into the data root once."""
    from torch.hub import download_url_to_file

    name = posixpath.basename(urlsplit(url).path) or "shard.tar"
    target = root / "wds" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(url, str(target), progress=False)  # to a temporary file, moved when complete
        except (OSError, ValueError) as error:
            raise InputError(
                f"{PREFIX}{url} could not be downloaded to {target.parent} ({error}); try again"
            ) from error
    return target


def split_of(shard: Path) -> Split | None:
    """Return the split that a shard names: with a word of its own name, else with all of its folder's."""
    words = [*re.split(r"[^a-z]+", shard.stem.lower()), shard.parent.name.lower()]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def samples(shard: Path, split: Split) -> Iterator[tuple[str, File]]:
    """Yield the class and the image of each sample of a shard."""
    by_key: dict[str, dict[str, Source]] = {}
    for file in list_archive(shard).files:
        folder, name = file.parts[:-1], file.parts[-1]
        key, _, suffix = name.partition(".")  # 0001.cls, and 0001.meta.json is the file "meta.json" of 0001
        if key:  # hidden files have none
            by_key.setdefault("/".join((*folder, key)), {})[suffix.lower()] = file.source
    for key, parts in by_key.items():
        images = [suffix for suffix in parts if f".{suffix}" in IMAGE_SUFFIXES]
        if not images:
            continue
        if len(images) > 1:
            raise InputError(f"{shard}: the sample {key} has the images {' and '.join(images)}; it should have one")
        name = label(shard, key, parts)
        yield name, File((split, name, shard.stem, key), parts[images[0]])
    if not any(f".{suffix}" in IMAGE_SUFFIXES for parts in by_key.values() for suffix in parts):
        raise InputError(f"{shard} holds no samples with an image; a sample is KEY.jpg beside KEY.cls")


def label(shard: Path, key: str, parts: dict[str, Source]) -> str:
    """Return the class of a sample as text.

    Raises:
        InputError: it has none.
    """
    suffix = "cls" if "cls" in parts else "json"
    try:
        data = parts[suffix].read()
        if len(data) > LONGEST_LABEL:
            raise ValueError("it is too long for a class")
        text = data.decode("utf-8").strip()
        if suffix == "json":
            content = json.loads(text)
            value = content["label"] if "label" in content else content["cls"]
            text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    except Exception as error:  # KeyError: no such file; of damaged ones anything
        raise InputError(
            f"{shard}: the sample {key} has no class ({type(error).__name__}: {error!s:.60}); "
            f"put it into {key}.cls, as a number or a name"
        ) from error
    if not text or not text.isprintable():
        raise InputError(f"{shard}: the class of the sample {key} is empty or no text; put it into {key}.cls")
    return text
