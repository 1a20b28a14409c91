"""The index of an archive: where each example is stored, checked once, when it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captum_attattr import checks
from captum_attattr.archives.plan import OPTIONAL, Form
from captum_attattr.exceptions import ResultFileError
from captum_attattr.files import check_version, read_json, reading, replacing
from captum_attattr.runs.digests import data_digest

INDEX = "index.json"
"""The index's name in the folder of an archive."""
_HEADER = "captum_attattr archive"
_VERSION = 1
_ENTRIES = ("finished", "about", "labels", "shards")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""A bare file name: no separator, drive or parent folder, so that a shard is always in the archive's own folder."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """A file of an archive.

    Attributes:
        file: its name in the archive's folder.
        size: in bytes.
        sha256: of its content; None in a run that has not ended.
        batches: the examples of each batch, in the order in which they are stored.
    """

    file: str
    size: int
    sha256: str | None
    batches: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        """Return its entry in the index."""
        digest = {} if self.sha256 is None else {"sha256": self.sha256}
        return {"file": self.file, "bytes": self.size, **digest, "batches": self.batches}


@dataclass(frozen=True)
class Index:
    """What an archive holds, and where. N examples.

    Attributes:
        finished: whether all of it is there.
        about: what tells its run from others.
        labels: the names of the targets.
        shards: its files.
        form: what is stored of an example.
        run: the digest of `about`, which every shard has in its header.
        positions: (N, 3) the shard of each example, its batch in the shard, and its row in the batch.
    """

    finished: bool
    about: dict[str, Any]
    labels: dict[int, str]
    shards: list[Shard]
    form: Form
    run: str
    positions: Any


def run_digest(about: Mapping[str, Any]) -> str:
    """Return the digest that tells a run's shards from those of others."""
    return data_digest(json.dumps(about, sort_keys=True))


def write_index(
    path: Path, finished: bool, about: Mapping[str, Any], labels: Mapping[int, str], shards: Sequence[Shard]
) -> None:
    """Write an index as JSON, with a line for each entry and each shard."""
    entries = {_HEADER: _VERSION, "finished": finished, "about": about, "labels": labels}
    lines = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in entries.items()]
    rows = ",\n".join(json.dumps(shard.as_json()) for shard in shards)
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + f',\n"shards": [\n{rows}\n]}}\n', encoding="utf-8")


def read_index(path: Path) -> Index | None:
    """Read the index of an archive, finished or not; None where there is no file.

    Raises:
        NotADirectoryError: the archive's folder is a file.
        ResultFileError: a file of something else, of another version, or damaged.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(f"{str(path.parent)!r} is no folder")
    if not path.exists():
        return None
    with reading(path, "index of an archive", "explain_dataset") as file:
        try:
            content = read_json(file)
        except (ValueError, RecursionError) as error:
            raise ResultFileError(
                f"{str(path)!r} is no JSON: {error!s:.200}; if explain_dataset wrote it, delete it and start the run "
                "again: shards that are whole are kept; else choose another folder"
            ) from error
        if not isinstance(content, dict) or _HEADER not in content:
            raise ResultFileError(f"{str(path)!r} is no index of an archive; choose another folder")
        check_version(file, content[_HEADER], _VERSION)
        try:
            return _index(content)
        except (TypeError, ValueError) as error:
            raise ResultFileError(
                f"{str(path)!r} is damaged: {error}; delete it, and start the run that made the archive again: shards "
                "that are whole are kept"
            ) from error


def _index(content: Mapping[str, Any]) -> Index:
    """Check the entries of an index."""
    if missing := [name for name in _ENTRIES if name not in content]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    finished = checks.instance("finished", content["finished"], bool, "true or false")
    about = checks.instance("about", content["about"], dict, "an object")
    form = Form(**_entries("about.form", about.get("form"), ("layers", "heads", "dtype", "attention"), OPTIONAL))
    shards = [_shard(f"shards[{i}]", entry, finished) for i, entry in enumerate(_list("shards", content["shards"]))]
    if len({shard.file for shard in shards}) < len(shards):
        raise ValueError("two shards have one file")
    labels = _labels(content["labels"])
    if finished and not labels:
        raise ValueError("labels is empty")
    positions = _positions(shards, checks.at_least(1, about.get("examples"), "about.examples"))
    return Index(finished, about, labels, shards, form, run_digest(about), positions)


def _shard(name: str, value: Any, finished: bool) -> Shard:
    """Check the entry of a shard."""
    digest = ("sha256",) if finished else ()
    entry = _entries(name, value, ("file", "bytes", "batches", *digest))
    if not isinstance(entry["file"], str) or not _FILE_NAME.fullmatch(entry["file"]):
        raise ValueError(f"{name}.file must be a bare file name, not {entry['file']!r:.60}")
    size = checks.at_least(1, entry["bytes"], f"{name}.bytes")
    sha256 = entry.get("sha256")
    if finished and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise ValueError(f"{name}.sha256 must be 64 hexadecimal digits, not {sha256!r:.60}")
    batches = [
        checks.integers(f"{name}.batches[{i}]", batch, smallest=0)
        for i, batch in enumerate(_list(f"{name}.batches", entry["batches"]))
    ]
    return Shard(entry["file"], size, sha256, batches)


def _labels(value: Any) -> dict[int, str]:
    """Check the names of the targets."""
    labels = checks.instance("labels", value, dict, "an object")
    checks.strings("labels", list(labels.values()))
    if wrong := [target for target in labels if not re.fullmatch(r"[0-9]+", target)]:
        raise ValueError(f"labels must name targets, not {wrong[0]!r:.60}")
    return {int(target): label for target, label in labels.items()}


def _positions(shards: Sequence[Shard], count: int) -> Any:
    """Return (N, 3) the shard, the batch in it and the row in that of each of `count` examples."""
    examples = [example for shard in shards for batch in shard.batches for example in batch]
    if len(examples) != count or sorted(examples) != list(range(count)):
        raise ValueError(f"shards must hold each of {count} examples once, but one is missing, or there twice")
    positions = np.empty((count, 3), dtype=np.int32)
    positions[examples] = [
        (index, batch, row)
        for index, shard in enumerate(shards)
        for batch, members in enumerate(shard.batches)
        for row in range(len(members))
    ]
    return positions


def _entries(name: str, value: Any, wanted: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Check that a value is an object with the entries that are wanted."""
    entries = checks.instance(name, value, dict, "an object")
    if differing := set(wanted) - entries.keys() | entries.keys() - {*wanted, *optional}:
        raise ValueError(f"{name} lacks or adds {', '.join(sorted(differing))}")
    return entries


def _list(name: str, value: Any) -> list[Any]:
    """Check that a value is a list."""
    return checks.instance(name, value, list, "a list")
