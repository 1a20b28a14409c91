"""A run over a data set: planned, begun or gone on with, shared among processes, ended."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from heapq import nlargest
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from captum_attattr.archives.archive import INDEX, file_digest, read_index, run_digest, write_index
from captum_attattr.archives.plan import Batch, Form, Layout, plan_batches, plan_shards, work
from captum_attattr.archives.shards import ShardWriter, bytes_done, is_whole, opened
from captum_attattr.exceptions import ConvergenceWarning, ResultFileError, warn_caller
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.explain import Explainer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.head_masks import active_gates
from captum_attattr.runs.digests import model_digest
from captum_attattr.runs.processes import Processes

VISIBLE_AFTER = 60.0
"""Seconds that a network's file system may take to show one machine what another has written."""


class Rows:
    """The texts of a data set, tokenized when they are needed."""

    def __init__(self, texts: TextModel, given: Sequence[Text], target: Any) -> None:
        self.texts, self.given, self.target = texts, given, target

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, number: int) -> tuple[Encoded, bytes]:
        """A text as the model takes it, and what is stored about it, as JSON."""
        target = self.target[number] if isinstance(self.target, list) else self.target
        item = self.texts.encode(number, self.given[number], target)
        said = {
            "number": number,
            "text": item.text,
            "tokens": self.texts.tokenizer.convert_ids_to_tokens(item.encoding["input_ids"][0].tolist()),
            "segments": item.segments,
            "special": [int(flag) for flag in item.special],
        }
        return item, json.dumps(said, separators=(",", ":")).encode()


class DatasetRun:
    """One run over a data set: planned, begun or gone on with, ended."""

    def __init__(self, explainer: Explainer, rows: Rows, folder: Path, form: Form, progress: bool) -> None:
        self.explainer, self.rows, self.folder, self.form, self.progress = explainer, rows, folder, form, progress
        self.shards: list[list[Batch]] = []
        self.about: dict[str, Any] = {}

    def plan(self, batch_size: int, shard_bytes: int | None) -> None:
        """Look at every text once: its length, and what tells this data set from others."""
        lengths, said = (np.empty(len(self.rows), dtype=np.int32) for _ in range(2))
        digest = hashlib.sha256()
        for number in tqdm(range(len(self.rows)), desc="tokenize", unit="text", delay=2, disable=not self.progress):
            item, about_text = self.rows[number]
            lengths[number], said[number] = item.length, len(about_text)
            tokens = {name: tensor[0].tolist() for name, tensor in item.encoding.items()}
            digest.update(json.dumps([tokens, item.target]).encode() + about_text)
        model = self.explainer.texts.model
        self.about = {
            "model": model_digest(model),
            "data": digest.hexdigest()[:16],
            "examples": len(self.rows),
            "options": self.explainer.options,
            "batch_size": batch_size,
            "shard_bytes": shard_bytes,
            "form": asdict(self.form),
        }
        if masked := active_gates(model):
            self.about["masked"] = masked
        self.about = json.loads(json.dumps(self.about))  # as it comes back from a file
        self.digest = run_digest(self.about)
        self.hidden = int(getattr(self.explainer.texts.config.get_text_config(), "hidden_size", 768))
        batches = plan_batches(lengths, said, self.form, batch_size)
        self.shards = plan_shards(batches, self.form, self.hidden, shard_bytes)

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"attributions-{number + 1:05d}-of-{len(self.shards):05d}.safetensors"

    def layout(self, number: int) -> Layout:
        """Where everything is in that file."""
        return Layout(self.shards[number], self.form, self.digest)

    def carry_out(self, processes: Processes) -> None:
        """Write the shards that are missing, then the index."""
        if len(set(processes.gathered(self.digest))) > 1:
            raise ValueError("the processes have not all the same model, texts and options")
        todo, finished = processes.first_alone(lambda: self._begin(processes.world))
        if finished and not todo:
            return
        mine = processes.share(todo, lambda number: sum(work(batch, self.hidden) for batch in self.shards[number]))
        self._write_shards(mine, processes)
        # A process need not see at once what others write, only what it wrote, and what was there before.
        before = sorted(set(range(len(self.shards))) - set(todo))
        facts = [self._facts(number) for number in (*mine, *processes.share(before, lambda _: 1.0))]
        self._end(processes, [fact for part in processes.gathered(facts) for fact in part])

    def _begin(self, world: int) -> tuple[list[int], bool]:
        """Which shards are missing, and whether the index says that none is; checked, and announced."""
        index = read_index(self.folder / INDEX)
        if index is not None and index["about"] != self.about:
            changes = _differences(index["about"], self.about)
            raise ValueError(
                f"{str(self.folder)!r} belongs to another run and is not gone on with ({changes}); choose another "
                "folder, or delete it"
            )
        todo = [number for number in range(len(self.shards)) if not is_whole(self.path(number), self.layout(number))]
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = 2**16 + sum(
            self.layout(number).ends[-1] - bytes_done(self.path(number), self.layout(number)) for number in todo
        )
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{_bytes(needed)} are needed and {_bytes(free)} are free; float16 takes half as much, and so do "
                "attributions without the attention",
                str(self.folder),
            )
        if index is None:
            self._write_index(None)
        if self.progress and todo:
            tqdm.write(self._announcement(todo, needed, free, world), file=sys.stderr)
        return todo, index is not None and index["finished"]

    def _announcement(self, todo: list[int], needed: int, free: int, world: int) -> str:
        missing = self._missing(todo)
        left = _examples(missing)
        what = f"{left:,} of {len(self.rows):,} texts" if left < len(self.rows) else f"{left:,} texts"
        line = f"explain {what}: {_bytes(needed)} in {self.folder} ({_bytes(free)} free)"
        seconds = self._trial(missing) / world
        shared = f" with {world} processes" if world > 1 else ""
        return line + (f", about {_duration(seconds)}{shared}" if seconds else "")

    def _trial(self, batches: list[Batch]) -> float:
        """About how many seconds it takes to explain what is left; 0 where a trial would be a good part of that."""
        left = _examples(batches)
        if left < 20:
            return 0.0
        done = list(accumulate(work(batch, self.hidden) for batch in batches))
        middle = batches[int(np.searchsorted(done, done[-1] / 2))]
        sample = Batch(middle.numbers[: min(4, 1 + left // 100)], middle.length, 0)
        items = [self.rows[number][0] for number in sample.numbers]
        self._explain(items[:1])  # what happens once only is not counted
        begin = time.perf_counter()
        self._explain(items)
        return (time.perf_counter() - begin) * done[-1] / work(sample, self.hidden)

    def _missing(self, shards: Sequence[int]) -> list[Batch]:
        """The batches of these shards that are not on disk."""
        found: list[Batch] = []
        for number in shards:
            layout = self.layout(number)
            found += layout.batches[layout.whole_batches(bytes_done(self.path(number), layout)) :]
        return found

    def _write_shards(self, shards: Sequence[int], processes: Processes) -> None:
        """Make these shards, or what is missing of them."""
        missing = self._missing(shards)
        left = sum(work(batch, self.hidden) for batch in missing)
        total = len(self.rows) if processes.world == 1 else _examples(missing)
        with tqdm(
            total=total,
            initial=total - _examples(missing),
            desc="explain" if processes.world == 1 else f"explain (process 0 of {processes.world})",
            unit="text",
            delay=2,
            disable=not self.progress or processes.rank > 0,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        ) as bar:
            watch = _Watch(left)
            for number in shards:
                with ShardWriter(self.path(number), self.layout(number)) as writer:
                    for batch in self.shards[number][writer.done :]:
                        writer.append(*self._explain_batch(batch))
                        still = watch.left(work(batch, self.hidden))
                        bar.set_postfix_str(f"about {_duration(still)} left", refresh=False)
                        bar.update(len(batch.numbers))
                    writer.finish()

    def _explain_batch(self, batch: Batch) -> tuple[list[Explanation], bytes]:
        """What is stored of a batch: the explanations, and what its texts are."""
        items, said = zip(*(self.rows[number] for number in batch.numbers), strict=True)
        texts = b"[" + b",".join(said) + b"]"
        if len(texts) != batch.texts or any(item.length != batch.length for item in items):
            raise ValueError(f"the texts have changed while they were explained: one of {batch.numbers}")
        return self._explain(list(items)), texts

    def _explain(self, items: list[Encoded]) -> list[Explanation]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it would count examples within this batch
            try:
                found = dict(self.explainer.run(items, lambda _: None))
            except ValueError as error:
                if type(error) is not ValueError:
                    raise
                raise ValueError(f"{error} (among the examples {', '.join(str(i.index) for i in items)})") from error
        return [found[item.index] for item in items]

    def _facts(self, number: int) -> dict[str, Any]:
        """What the index says of a shard that is whole, and which of its maps did not converge."""
        path, tolerance = self.path(number), self.explainer.options["tolerance"]
        targets: set[int] = set()
        above: list[tuple[float, int, int]] = []
        with opened(path, self.digest) as file:
            for i, batch in enumerate(self.shards[number]):
                targets.update(file.get_tensor(f"{i}.target").tolist())
                errors = file.get_tensor(f"{i}.error")
                places = (errors > tolerance).nonzero().tolist()
                above += [(float(errors[place, layer]), batch.numbers[place], layer) for place, layer in places]
        return {
            "number": number,
            "sha256": file_digest(path),
            "targets": targets,
            "unconverged": len(above),
            "worst": nlargest(10, above),
        }

    def _end(self, processes: Processes, facts: list[dict[str, Any]]) -> None:
        """Write the index, and say what did not converge."""
        processes.first_alone(lambda: self._finish(facts))
        count = sum(fact["unconverged"] for fact in facts)
        if count and processes.rank == 0:
            worst = nlargest(10, [one for fact in facts for one in fact["worst"]])
            named = "; ".join(f"example {number}, layer {layer}: {error:.1e}" for error, number, layer in worst)
            warn_caller(
                f"{count} of {len(self.rows) * self.form.layers} attribution maps have an estimated relative error "
                f"above the tolerance {self.explainer.options['tolerance']:g}: {named}{'; ...' if count > 10 else ''}",
                ConvergenceWarning,
            )

    def _finish(self, facts: list[dict[str, Any]]) -> None:
        wanted = {self.path(number).name for number in range(len(self.shards))}
        begin = time.monotonic()
        while missing := wanted - {path.name for path in self.folder.iterdir()}:
            if time.monotonic() - begin > VISIBLE_AFTER:
                raise ResultFileError(
                    f"{str(self.folder)!r} lacks {len(missing)} shards that other processes wrote: they must all write "
                    "to one folder, on a file system that all machines share"
                )
            time.sleep(0.5)
        self._write_index(facts)

    def _write_index(self, facts: list[dict[str, Any]] | None) -> None:
        """The plan as an index; with the facts of all shards, the index of what is finished."""
        digests = {fact["number"]: {"sha256": fact["sha256"]} for fact in facts or ()}
        targets = sorted({target for fact in facts or () for target in fact["targets"]})
        shards = [
            {
                "file": self.path(number).name,
                "bytes": self.layout(number).ends[-1],
                **digests.get(number, {}),
                "batches": [batch.numbers for batch in batches],
            }
            for number, batches in enumerate(self.shards)
        ]
        label = self.explainer.texts.label
        index = {"finished": facts is not None, "about": self.about, "labels": {t: label(t) for t in targets}}
        write_index(self.folder / INDEX, index, shards)


def _examples(batches: Sequence[Batch]) -> int:
    return sum(len(batch.numbers) for batch in batches)


class _Watch:
    """How long it still takes, judged by how long it took so far."""

    def __init__(self, total: float) -> None:
        self.total, self.done, self.begin = total, 0.0, time.monotonic()

    def left(self, done: float) -> float:
        """Seconds that are left after `done` more work."""
        self.done += done
        return (time.monotonic() - self.begin) / self.done * (self.total - self.done)


def _differences(there: dict[str, Any], now: dict[str, Any]) -> str:
    before, after = _flat(there), _flat(now)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return ", ".join(f"{name} {before.get(name)!r:.40} there, {after.get(name)!r:.40} now" for name in differing)


def _flat(about: dict[str, Any]) -> dict[str, Any]:
    nested = {name: value for name, value in about.items() if isinstance(value, dict)}
    inner = {f"{name}.{key}": value for name, entries in nested.items() for key, value in entries.items()}
    return {name: value for name, value in about.items() if name not in nested} | inner


def _bytes(count: float) -> str:
    unit = "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if count >= 1000:
            count, unit = count / 1000, larger
    return f"{count:.3g} {unit}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
