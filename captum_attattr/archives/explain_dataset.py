"""`explain_dataset`: the explanations of thousands of texts, straight to disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from captum_attattr.archives.archive import Archive
from captum_attattr.archives.plan import Form
from captum_attattr.archives.run import DatasetRun, Rows
from captum_attattr.attribution.inputs import check_rule
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.explain import Explainer
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.processes import Processes


def explain_dataset(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[Text],
    folder: str | os.PathLike[str],
    target: Any = None,
    *,
    truncate: bool | int = False,
    n_steps: int | None = None,
    method: str = "gausslegendre",
    tolerance: float = 1e-3,
    max_nodes: int = 1_000,
    internal_batch_size: int | None = None,
    batch_size: int = 32,
    attention: bool = True,
    dtype: str = "float32",
    shard_bytes: int | None = None,
    progress: bool = True,
) -> Archive:
    """Explain a whole data set, and write the explanations to disk as they are made.

    The same numbers as `explain`, for texts whose maps do not fit in memory: what is held at any moment is one batch
    of texts of one length, however many there are. A run that is interrupted, even killed, is gone on with by the
    same call: no batch that was finished is done again, and the files are in the end those of a run that was not
    interrupted, byte for byte (on the same machine, with the same number of threads). Under `torchrun` or `accelerate
    launch`, with a process group, every process does a share; all must see the folder.

    Before it starts, the room on the disk is checked and, with `progress`, a line says how much that will be and about
    how long it will take, after a trial of up to four texts.

    Args:
        model: a transformers model for sequence classification, or a causal language model; it runs in evaluation
            mode.
        tokenizer: its tokenizer.
        texts: texts, or (text, second text) pairs. Any sequence: a text is asked for to
            measure it, again when its turn comes, and not kept.
        folder: where the files go; made if it is missing.
        target: as in `explain`: None for the predicted class, a class or token for all, or a list with one for each.
        truncate: cut texts that are longer than the model takes, instead of raising; a number cuts to at most so
            many tokens.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`.
        batch_size: most texts that are explained, and kept in memory, together.
        attention: also store the attention probabilities; without them an explanation has zeros there.
        dtype: of the maps in the files: "float32", or "float16", which takes half the room and moves a number by at
            most a 2,000th of itself (of attributions, or by 1e-11 of the layer's largest; of attention, or by 3e-8).
        shard_bytes: size of a file on average; None for a 64th of the whole, between a MiB and a GiB.
        progress: say what is to come, and show a bar for what takes longer than two seconds.

    Returns:
        The explanations, read from the files as they are asked for.

    Raises:
        TypeError, ValueError: as `explain`, before the model runs; another model, other data or options than those
            that the folder was begun with.
        OSError: the folder cannot be written, or the disk has not the room; the message has the path.
        ResultFileError: a file in the way that is no part of this run.
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
    options = check_rule(method, n_steps, tolerance, max_nodes, internal_batch_size)._asdict()
    _check_storage(batch_size, dtype, shard_bytes)
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"texts must be a list of texts or of pairs, got {type(texts).__name__}; use [text]")
    if not texts:
        raise ValueError("texts is empty: give at least one text or pair")
    if isinstance(target, list) and len(target) != len(texts):
        raise ValueError(f"target lists {len(target)} entries for {len(texts)} texts")
    explainer = Explainer(model, tokenizer, truncate, options)
    form = Form(explainer.texts.depth, explainer.texts.width, dtype, bool(attention))
    run = DatasetRun(explainer, Rows(explainer.texts, texts, target), Path(folder), form, progress)
    run.plan(batch_size, shard_bytes)
    with evaluation_mode(explainer.texts.model), Processes.together() as processes:
        run.carry_out(processes)
    return Archive(folder)


def _check_storage(batch_size: int, dtype: str, shard_bytes: int | None) -> None:
    for name, value in (("batch_size", batch_size), ("shard_bytes", shard_bytes)):
        if value is None and name == "shard_bytes":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be an int of 1 or more")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype={dtype!r} is unknown; use 'float32' or 'float16'")
