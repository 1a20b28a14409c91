"""`explain_dataset`: the explanations of thousands of texts, straight to disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_attattr import checks
from captum_attattr.archives.archive import Archive
from captum_attattr.archives.batch_digests import BatchDigests
from captum_attattr.archives.examples import Examples, Pairs
from captum_attattr.archives.index import INDEX, read_index
from captum_attattr.archives.plan import Form
from captum_attattr.archives.run import DatasetRun
from captum_attattr.archives.shards import part_of
from captum_attattr.checks import checked_arguments
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.examples import Texts, sequence_of
from captum_attattr.explanations.explainer import Explainer
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.targets import each
from captum_attattr.files import checked_path
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.projections import Heads
from captum_attattr.runs.processes import Processes


@checked_arguments
def explain_dataset(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    folder: str | os.PathLike[str],
    target: Any = None,
    *,
    output: str | None = None,
    contrast: Any = None,
    path: str = "layer",
    baseline: str | float | None = None,
    task: str | None = None,
    split_into_words: bool = False,
    layers: Iterable[int] | None = None,
    truncate: bool | int = False,
    n_steps: int | None = None,
    method: str = "gausslegendre",
    tolerance: float = 1e-3,
    max_nodes: int = 1_000,
    internal_batch_size: int | None = None,
    batch_size: int = 32,
    attention: bool = True,
    dtype: torch.dtype | str = "float32",
    shard_bytes: int | None = None,
    progress: bool = True,
) -> Archive:
    """Explain a whole data set, and write the explanations to disk as they are made.

    The explanations are those of `explain`, for texts whose maps do not fit in memory: one batch of texts of one length
    is in memory at a time, however many texts there are. The same call resumes a run that was interrupted, even killed:
    no finished batch is done again, and in the end the files are those of a run that was not interrupted, byte for byte
    (on the same machine, with the same number of threads). Under `torchrun` or `accelerate launch`, with a process
    group, every process does a share; all of them must see the folder.

    At the start the room on the disk is checked. With `progress`, a line says how much will be written and, after a
    trial of up to four texts, about how long it will take.

    Args:
        model: a transformers model for sequence classification, or a causal language model; it runs in evaluation
            mode.
        tokenizer: its tokenizer.
        texts: what `explain` takes. Any sequence: each is read for its length, read again when it is explained, and
            not kept; other iterables are read whole.
        folder: where the files go; made if it is missing.
        target: as in `explain`: None for the predicted class, a class or token for all, or a list or array with one
            for each.
        output, path, baseline, layers: as in `explain`.
        contrast: as in `explain`: a second class or token for all, or a list or array with one for each.
        task, split_into_words: as in `explain`.
        truncate: cut texts that are longer than the model takes, instead of raising; a number cuts to at most so
            many tokens.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`.
        batch_size: the most texts that are explained, and kept in memory, together.
        attention: also store the attention probabilities; without them an explanation has None there.
        dtype: of the maps in the files: "float32" or "float16" (or torch's types), which takes half the room and
            changes an attribution by at most a 2,000th of itself or 1e-11 of the layer's largest, an attention
            probability by at most a 2,000th of itself or 3e-8.
        shard_bytes: the average size of a file; None for a 64th of the whole, between a MiB and a GiB.
        progress: announce what will be done, and show a bar for what takes longer than two seconds.

    Returns:
        The explanations, each of which is read from the files when it is asked for.

    Raises:
        TypeError, ValueError: as `explain`, before the model runs; a folder that holds a run of another model, other
            data or options.
        OSError: the folder cannot be written, or the disk lacks the room; the message has the path.
        ResultFileError: a file of another run is in the way, or one of this run is damaged.
        UnsupportedModelError: the model's attention cannot be read.

    Warns:
        ConvergenceWarning: maps whose estimated error stayed above the tolerance, counted over the whole data set.

    Example:
        >>> import tempfile
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     archive = explain_dataset(model, tokenizer, ["a fine film", "dull"], folder, progress=False)
        ...     [explanation.label for explanation in archive]
        ['positive', 'negative']
    """
    settings = Settings.of(
        output=output,
        path=path,
        baseline=baseline,
        layers=layers,
        attention=attention,
        n_steps=n_steps,
        method=method,
        tolerance=tolerance,
        max_nodes=max_nodes,
        internal_batch_size=internal_batch_size,
    )
    batch_size = checks.at_least(1, batch_size, "batch_size")
    shard_bytes = shard_bytes if shard_bytes is None else checks.at_least(1, shard_bytes, "shard_bytes")
    folder = checked_path(folder, "folder")
    texts = sequence_of(texts, split_into_words)
    pairs = Pairs(each("target", target, len(texts)), each("contrast", contrast, len(texts)))
    explainer = Explainer(
        model, tokenizer, truncate, settings, contrast is not None, task=task, split_into_words=split_into_words
    )
    form = Form(
        len(explainer.numbers),
        max(Heads(layer).original for layer in explainer.layers),
        str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype,
        explainer.settings.attention,
        inputs=True,
        numbers=explainer.settings.layers,
        value=contrast is not None or explainer.output != explainer.texts.output,
        total=settings.path == "joint",
    )
    with evaluation_mode(explainer.texts.model), Processes.together() as processes:
        if processes.first_alone(lambda: _is_of_version_0_1(folder)):
            form = replace(form, inputs=False)
        run = DatasetRun(explainer, Examples(explainer, texts, pairs, form.inputs), folder, form, progress)
        run.plan(batch_size, shard_bytes)
        with _nothing_left_if_refused(run, alone=processes.world == 1):
            run.carry_out(processes)
    return Archive(folder)


@contextmanager
def _nothing_left_if_refused(run: DatasetRun, alone: bool) -> Iterator[None]:
    """Remove what a run has begun where it is refused before a batch is done; another run's files stay.

    Args:
        run: planned.
        alone: whether no other process shares it: the others may be at work.
    """
    shards = [run.path(shard) for shard in range(len(run.shards))]
    files = [run.folder / INDEX, *map(part_of, shards)]
    made, before = not run.folder.exists(), {path for path in files if path.exists()}
    try:
        yield
    except (UnsupportedModelError, TypeError, ValueError):
        if alone and not before and not any(path.exists() or BatchDigests(path).read() for path in shards):
            for path in files:
                path.unlink(missing_ok=True)
            if made and run.folder.exists():
                with suppress(OSError):  # somebody else's files are in it
                    run.folder.rmdir()
        raise


def _is_of_version_0_1(folder: Path) -> bool:
    """Return whether a folder holds a run that version 0.1 began: one that does not store the model's inputs."""
    index = read_index(folder / INDEX)
    return index is not None and not index.form.inputs
