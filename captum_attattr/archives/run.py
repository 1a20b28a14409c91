"""A run over a data set: planned, begun or resumed, shared among processes, and ended with an index."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from heapq import nlargest
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from captum_attattr.archives.batch_digests import BatchDigests
from captum_attattr.archives.examples import Examples
from captum_attattr.archives.index import INDEX, Index, Shard, read_index, run_digest, write_index
from captum_attattr.archives.plan import Batch, Form, Layout, plan_batches, plan_shards, work
from captum_attattr.archives.shards import ShardWriter, batches_done, check_whole, opened, part_of
from captum_attattr.exceptions import ConvergenceWarning, ResultFileError, warn_caller
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explainer import Explainer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.formatting import duration, file_size
from captum_attattr.model.head_masks import active_gates
from captum_attattr.runs.digests import differences, file_digest, model_digest
from captum_attattr.runs.processes import Processes

VISIBLE_AFTER = 60.0
"""Seconds that a network's file system may take to show one machine what another has written."""
_WORST = 10  # maps that the warning about convergence names


class ShardFacts(NamedTuple):
    """What the end of a run tells of a shard.

    Attributes:
        shard: its index.
        sha256: of its file.
        targets: of its examples.
        unconverged: how many of its maps have an estimated error above the tolerance.
        worst: (error, example, layer) of the worst of these.
    """

    shard: int
    sha256: str
    targets: set[int]
    unconverged: int
    worst: list[tuple[float, int, int]]


class DatasetRun:
    """One run over a data set.

    Args:
        explainer: explains encoded texts.
        examples: the texts.
        folder: where the files go.
        form: what is stored.
        progress: whether to say what is to come, and to show bars.
    """

    def __init__(self, explainer: Explainer, examples: Examples, folder: Path, form: Form, progress: bool) -> None:
        self.explainer, self.examples, self.folder = explainer, examples, folder
        self.form, self.progress = form, progress
        self.shards: list[list[Batch]] = []
        self.about: dict[str, Any] = {}
        self.rows: Callable[[int], object] = int
        """Is told how many rows are about to be run, many times within a long text."""

    def plan(self, batch_size: int, shard_bytes: int | None) -> None:
        """Read every text once: for its length, and for the digest that tells this data set from others."""
        lengths, stored = (np.empty(len(self.examples), dtype=np.int32) for _ in range(2))
        digest = hashlib.sha256()
        for index in tqdm(range(len(self.examples)), desc="tokenize", unit="text", delay=2, disable=not self.progress):
            item, text = self.examples[index]
            lengths[index], stored[index] = item.length, len(text)
            inputs = {name: tensor[0].tolist() for name, tensor in item.encoding.items()}
            digest.update(json.dumps([inputs, item.target]).encode() + text)
        model = self.explainer.texts.model
        about = {
            "model": model_digest(model),
            "data": digest.hexdigest()[:16],
            "examples": len(self.examples),
            "options": self.explainer.settings.as_json(),
            "batch_size": batch_size,
            "shard_bytes": shard_bytes,
            "form": self.form.as_json(),
        }
        if masked := active_gates(model):
            about["masked"] = masked
        self.about = json.loads(json.dumps(about))  # as it comes back from a file
        self.digest = run_digest(self.about)
        self.hidden = int(getattr(self.explainer.texts.config.get_text_config(), "hidden_size", 768))
        batches = plan_batches(lengths, stored, self.form, batch_size)
        self.shards = plan_shards(batches, self.form, self.hidden, shard_bytes)

    def path(self, shard: int) -> Path:
        """Return the path of a shard by its index."""
        return self.folder / f"attributions-{shard + 1:05d}-of-{len(self.shards):05d}.safetensors"

    def layout(self, shard: int) -> Layout:
        """Return the bytes of a shard by its index."""
        return Layout(self.shards[shard], self.form, self.digest)

    def carry_out(self, processes: Processes) -> None:
        """Write the shards that are missing, then the index."""
        if len(set(processes.gathered(self.digest))) > 1:
            raise ValueError("the processes have not all the same model, texts and options")
        todo, finished = processes.first_alone(lambda: self._begin(processes.world))
        if finished and not todo:
            return
        mine = processes.share(todo, lambda shard: self._work(self.shards[shard]))
        self._write_shards(mine, processes)
        # A process may not see at once what others write; it sees what it wrote, and what was there before the run.
        before = sorted(set(range(len(self.shards))) - set(todo))
        facts = [self._facts(shard) for shard in (*mine, *processes.share(before, lambda _: 1.0))]
        self._end(processes, [fact for part in processes.gathered(facts) for fact in part])

    def _begin(self, world: int) -> tuple[list[int], bool]:
        """Check the folder and the disk, and announce the run.

        Returns:
            The indices of the shards that are missing, and whether the index is that of a finished run.
        """
        index = read_index(self.folder / INDEX)
        if index is not None and index.about != self.about:
            raise ValueError(
                f"{str(self.folder)!r} belongs to another run and is not resumed "
                f"({differences(index.about, self.about)}); choose another folder, or delete it"
            )
        todo = self._check_shards(index)
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = (self._missing_bytes(shard) for shard in todo)
        needed, free = 2**16 + sum(missing), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{file_size(needed)} are needed and {file_size(free)} are free; float16 takes half as much, and so do "
                "attributions without the attention",
                str(self.folder),
            )
        if index is None:
            self._write_index()
        if self.progress and todo:
            room = f"{file_size(needed)} in {self.folder} ({file_size(free)} free)"
            tqdm.write(self._announcement(self._missing(todo), room, world), file=sys.stderr)
        finished = index is not None and index.finished
        if finished and not todo:
            self._remove_digests()  # where the run before was killed at its very end
        return todo, finished

    def _check_shards(self, index: Index | None) -> list[int]:
        """Read all that is on disk, have what is damaged made again, and return the shards that are not whole."""
        digests = {shard.file: shard.sha256 for shard in index.shards} if index else {}
        todo = []
        for shard in tqdm(
            range(len(self.shards)), desc="check", unit="shard", delay=2, leave=False, disable=not self.progress
        ):
            path, layout = self.path(shard), self.layout(shard)
            if check_whole(path, layout, digests.get(path.name)):
                continue
            todo.append(shard)
            if part_of(path).exists():
                with ShardWriter(path, layout):
                    pass  # it cuts off what is damaged
        return todo

    def _done(self, shard: int) -> int:
        """Return how many batches of a shard are on disk."""
        return batches_done(self.path(shard), self.layout(shard))

    def _missing_bytes(self, shard: int) -> int:
        """Return how many bytes of a shard are not on disk."""
        done, ends = self._done(shard), self.layout(shard).ends
        return ends[-1] - (ends[done] if done else 0)

    def _remove_digests(self) -> None:
        """Remove the digests of batches once the index has those of the files."""
        for shard in range(len(self.shards)):
            BatchDigests(self.path(shard)).remove()

    def _announcement(self, missing: Sequence[Batch], room: str, world: int) -> str:
        """Return the line that says how many texts are explained, in what room and time."""
        left, total = _count(missing), len(self.examples)
        seconds = self._estimate(missing) / world
        time_left = f", about {duration(seconds)}" if seconds else ""
        shared = f" with {world} processes" if seconds and world > 1 else ""
        return f"explain {f'{left:,} of ' * (left < total)}{total:,} texts: {room}{time_left}{shared}"

    def _estimate(self, missing: Sequence[Batch]) -> float:
        """Estimate the seconds of what is missing from up to four texts of a batch in the middle of the work.

        Returns:
            The seconds; 0 where so little is missing that the trial would be a good part of it.
        """
        left = _count(missing)
        if left < 20:
            return 0.0
        done = list(accumulate(work(batch, self.hidden) for batch in missing))
        middle = missing[int(np.searchsorted(done, done[-1] / 2))]
        sample = Batch(middle.examples[: min(4, 1 + left // 100)], middle.length, 0)
        items = [self.examples[example][0] for example in sample.examples]
        self._explain(items[:1])  # to leave what happens only once out of the measurement
        begin = time.perf_counter()
        self._explain(items)
        return (time.perf_counter() - begin) * done[-1] / work(sample, self.hidden)

    def _work(self, batches: Sequence[Batch]) -> float:
        """Return what batches cost."""
        return sum(work(batch, self.hidden) for batch in batches)

    def _missing(self, shards: Sequence[int]) -> list[Batch]:
        """Return the batches of some shards that are not on disk."""
        missing: list[Batch] = []
        for shard in shards:
            missing += self.shards[shard][self._done(shard) :]
        return missing

    def _write_shards(self, shards: Sequence[int], processes: Processes) -> None:
        """Write what is missing of some shards."""
        missing = self._missing(shards)
        alone, left = processes.world == 1, self._work(missing)
        total = len(self.examples) if alone else _count(missing)
        with tqdm(
            total=total,
            initial=total - _count(missing),
            desc="explain" if alone else f"explain (process 0 of {processes.world})",
            unit="text",
            delay=2,
            miniters=0,
            disable=not self.progress or processes.rank > 0,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        ) as bar:
            self.rows = lambda _: bar.update(0)  # the bar's times move
            begin, done = time.monotonic(), 0.0
            for shard in shards:
                with ShardWriter(self.path(shard), self.layout(shard)) as writer:
                    for batch in self.shards[shard][writer.done :]:
                        writer.append(*self._explain_batch(batch))
                        done += work(batch, self.hidden)
                        seconds = (time.monotonic() - begin) / done * (left - done)
                        bar.set_postfix_str(f"about {duration(seconds)} left", refresh=False)
                        bar.update(len(batch.examples))
                    writer.finish()

    def _explain_batch(self, batch: Batch) -> tuple[list[Explanation], bytes]:
        """Return the explanations of a batch, and the JSON list of its texts."""
        items, stored = zip(*(self.examples[example] for example in batch.examples), strict=True)
        texts = b"[" + b",".join(stored) + b"]"
        if len(texts) != batch.texts or any(item.length != batch.length for item in items):
            raise ValueError(f"the texts have changed while they were explained: one of {batch.examples}")
        return self._explain(list(items)), texts

    def _explain(self, items: list[Encoded]) -> list[Explanation]:
        """Explain encoded texts of one length; an error names their indices."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one warning for the whole run comes at its end
            try:
                explanations = dict(self.explainer.run(items, int, self.rows))
            except ValueError as error:
                if type(error) is not ValueError:
                    raise
                raise ValueError(f"{error} (among the examples {', '.join(str(i.index) for i in items)})") from error
        return [explanations[i] for i in range(len(items))]

    def _facts(self, shard: int) -> ShardFacts:
        """Read from a whole shard what the index says of it, and which of its maps did not converge."""
        path, tolerance = self.path(shard), self.explainer.settings.rule.tolerance
        joint, targets = self.form.total, set[int]()
        above: list[tuple[float, int, int]] = []
        with opened(path, self.digest) as file:
            for i, batch in enumerate(self.shards[shard]):
                targets.update(file.get_tensor(f"{i}.target").tolist())
                # (B, L), or (B, 1) of all layers together
                errors = file.get_tensor(f"{i}.total_error")[:, None] if joint else file.get_tensor(f"{i}.error")
                rows = (errors > tolerance).nonzero().tolist()
                above += [(float(errors[row, layer]), batch.examples[row], layer) for row, layer in rows]
        return ShardFacts(shard, file_digest(path), targets, len(above), nlargest(_WORST, above))

    def _end(self, processes: Processes, facts: Sequence[ShardFacts]) -> None:
        """Write the index, and warn of maps that did not converge."""
        processes.first_alone(lambda: self._finish(facts))
        count = sum(fact.unconverged for fact in facts)
        if count and processes.rank == 0:
            worst = nlargest(_WORST, [one for fact in facts for one in fact.worst])
            joint = self.form.total
            named = "; ".join(
                f"example {example}, {'all layers' if joint else f'layer {self.form.number(layer)}'}: {error:.1e}"
                for error, example, layer in worst
            )
            total = len(self.examples) * (1 if joint else self.form.layers)
            maps = "sets of maps" if joint else "attribution maps"
            warn_caller(
                f"{count} of {total} {maps} have an estimated relative error "
                f"above the tolerance {self.explainer.settings.rule.tolerance:g}: "
                f"{named}{'; ...' if count > _WORST else ''}",
                ConvergenceWarning,
            )

    def _finish(self, facts: Sequence[ShardFacts]) -> None:
        """Wait until this process sees all shards, then write the index of a finished run."""
        wanted = {self.path(shard).name for shard in range(len(self.shards))}
        begin = time.monotonic()
        while missing := wanted - {path.name for path in self.folder.iterdir()}:
            if time.monotonic() - begin > VISIBLE_AFTER:
                raise ResultFileError(
                    f"{str(self.folder)!r} lacks {len(missing)} shards that other processes wrote: they must all write "
                    "to one folder, on a file system that all machines share"
                )
            time.sleep(0.5)
        self._write_index(facts)
        self._remove_digests()

    def _write_index(self, facts: Sequence[ShardFacts] = ()) -> None:
        """Write the plan as the index of a run that has begun; with the facts of all shards, of one that has ended."""
        digests = {fact.shard: fact.sha256 for fact in facts}
        shards = [
            Shard(
                self.path(shard).name,
                self.layout(shard).ends[-1],
                digests.get(shard),
                [list(batch.examples) for batch in batches],
            )
            for shard, batches in enumerate(self.shards)
        ]
        targets = sorted({target for fact in facts for target in fact.targets})
        labels = {target: self.explainer.texts.label(target) for target in targets}
        write_index(self.folder / INDEX, bool(facts), self.about, labels, shards)


def _count(batches: Sequence[Batch]) -> int:
    """Return how many examples batches hold."""
    return sum(len(batch.examples) for batch in batches)
