"""What triggers do to a model, measured: beside the clean rows, beside random words, chosen on other rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.checks import at_least, checked_arguments, instance
from captum_attattr.explanations.encoding import Text
from captum_attattr.files import checked_path
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.digests import data_digest
from captum_attattr.triggers.insertion import inserted
from captum_attattr.triggers.outcomes import ALL
from captum_attattr.triggers.report import AttackReport, Choice
from captum_attattr.triggers.trigger import Trigger, checked_triggers
from captum_attattr.triggers.victims import Condition, Rows, Victim

CONTROLS = ("random words", None)

Transfer = tuple[nn.Module, Any] | tuple[nn.Module, Any, Sequence[Text], Sequence[Any]]
"""(model, tokenizer) or, on other rows, (model, tokenizer, examples, labels)."""


@checked_arguments
def attack(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    triggers: Sequence[Trigger],
    control: str | None = "random words",
    *,
    selection: tuple[Sequence[Text], Sequence[Any]] | None = None,
    k: int = 3,
    choose_by: str = "all",
    candidates: int = 50,
    vocabulary: Sequence[Text] | None = None,
    control_seeds: int = 5,
    transfer: Mapping[str, Transfer] | None = None,
    name: str = "model",
    batch_size: int = 32,
    truncate: bool | int = False,
    task: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> AttackReport:
    """Insert triggers into examples, and measure what that does to a model's accuracy.

    Every trigger stands beside the clean examples and beside its control: random words, as many, at the same
    relative positions of the same segments, drawn uniformly from the distinct tokens of `vocabulary` (word pieces
    for word pieces). The best triggers are chosen on other rows: chosen on the rows that they are then
    measured on, the best of many look stronger than they are. The random words are not chosen: beside them a
    trigger shows that it does more than any words would, not that no search could find as much.

    Under `torchrun`, with a process group, every process does a share of the batches.

    Args:
        model: a transformers model for sequence classification (or a causal language model, whose classes are
            the tokens that come next).
        tokenizer: its tokenizer.
        examples, labels: the evaluation rows, texts or pairs, and their gold classes, indices or names.
        triggers: of `extract_triggers` or `compose_triggers`, strongest first.
        control: "random words", or None for no control.
        selection: (examples, labels) on which the `k` best triggers are chosen; None measures all of them.
        k: how many are chosen: those with the largest fall of accuracy.
        choose_by: accuracy of which rows: "all", or a class, by its name.
        candidates: so many triggers, the first ones, are tried on the selection rows.
        vocabulary: texts whose tokens the random words are; best those that the model was trained on. None for
            the selection rows, and without these the evaluation rows.
        control_seeds: how many random draws for each trigger.
        transfer: other models (on the same rows), or other models on other rows, which meet the same triggers:
            {"name": (model, tokenizer)} or {"name": (model, tokenizer, examples, labels)}.
        name: what the first model is called in the report.
        batch_size, truncate, task, progress: as in `head_importance`, for all models. The rows that become too long
            by their trigger lose tokens at their end; see `insert_trigger`.
        resume: a folder, made if it is missing; what is done is kept there, and an interrupted attack is resumed.

    Returns:
        Accuracy per gold class and overall, its interval, drop, flip rate and the examples that flipped, for the
        clean rows, each trigger and each control; `table()` for a terminal, `plot_attack` for a figure.

    Raises:
        TypeError, ValueError: no trigger, a trigger without a word, labels that do not match, numbers out of
            range, selection rows that are evaluation rows too, a model that gives a score, two models or two classes
            of one name, a text without room.

    Example:
        >>> from captum_attattr import explain, extract_triggers
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> text = "Seldom has a movie so closely matched the spirit of a man and his work ."
        >>> triggers = extract_triggers(explain(model, tokenizer, [text], progress=False))
        >>> rows, gold = ["a gorgeous , witty film", "a quiet , moving story"], ["positive", "positive"]
        >>> report = attack(model, tokenizer, rows, gold, triggers, progress=False)
        >>> report.victims[0].outcomes[0].kind, len(report.victims[0].outcomes)
        ('clean', 7)
    """
    triggers = _with_words(triggers)
    if control not in CONTROLS:
        raise ValueError(f"control={control!r} is unknown; use 'random words' or None")
    k, candidates = at_least(1, k, "k"), at_least(1, candidates, "candidates")
    draws = at_least(1, control_seeds, "control_seeds") if control else 0
    run = _Run(batch_size, _folder(resume), progress)
    reading: dict[str, Any] = {"truncate": truncate, "task": task}
    first = Rows(instance("name", name, str, "a string"), model, tokenizer, examples, labels, reading)
    every = [first, *_transferred(transfer, first, reading)]
    selected = None
    if selection is None:
        if choose_by != ALL:
            raise ValueError(f"choose_by={choose_by!r:.60} needs selection=(examples, labels), rows to choose on")
    else:
        selected = _selection_rows(first, selection, choose_by, reading)
        triggers = triggers[:candidates]
    # All that can be refused is refused before the first row is read by a model.
    if vocabulary is None:
        vocabulary = selected.examples if selected else examples
    victims = [Victim.of(rows, triggers, tokenizer, vocabulary if draws else None) for rows in every]
    choosing = Victim.of(selected, triggers, tokenizer, None) if selected else None
    choice = _chosen(run, choosing, k, choose_by) if choosing else None
    best = choice.best if choice else range(len(triggers))
    results = []
    for i, victim in enumerate(victims):
        conditions = victim.conditions(best, draws)
        results.append(victim.result(conditions, run.predictions(victim.rows, conditions, f"model{i}")))
    return AttackReport(results, choice)


def _with_words(given: Any) -> list[Trigger]:
    """Return triggers, at least one, that hold a word each."""
    triggers = checked_triggers(given)
    if not triggers:
        raise ValueError("triggers is empty: give at least one trigger")
    for i, trigger in enumerate(triggers):
        if not trigger.tokens and trigger.rules != "reference":
            raise ValueError(f"triggers[{i}] holds no word, so there is nothing to insert")
    return triggers


def _transferred(transfer: Any, first: Rows, reading: dict[str, Any]) -> list[Rows]:
    """Return the other models with their rows, those of the first one where they have none."""
    if not isinstance(transfer or {}, Mapping):
        raise TypeError(f"transfer must be a dict of models by their names, not {type(transfer).__name__}")
    others = []
    for name, given in (transfer or {}).items():
        if instance("a name in transfer", name, str, "a string") == first.name:
            raise ValueError(f"two models are called {name!r}; choose another name")
        if not isinstance(given, tuple | list) or len(given) not in (2, 4):
            raise TypeError(f"transfer[{name!r}] must be (model, tokenizer) or (model, tokenizer, examples, labels)")
        # By name: the other model may have the classes in another order.
        rows = first.examples, [first.texts.label(gold) for gold in first.gold.tolist()]
        model, tokenizer, examples, labels = (*given, *rows)[:4]
        try:
            others.append(Rows(name, model, tokenizer, examples, labels, reading))
        except ValueError as error:
            raise ValueError(f"transfer[{name!r}]: {error}") from error
    return others


def _folder(resume: Any) -> Path | None:
    """Return the folder of what is done, which need not exist."""
    if resume is None:
        return None
    folder = checked_path(resume, "resume")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"resume must be a folder, and {str(resume)!r} is none")
    return folder


def _selection_rows(first: Rows, selection: Any, choose_by: str, reading: dict[str, Any]) -> Rows:
    """Return the rows on which triggers are chosen.

    Raises:
        TypeError, ValueError: they are no rows, some of them are evaluation rows, or none has the class `choose_by`.
    """
    if not isinstance(selection, tuple | list) or len(selection) != 2:
        raise TypeError("selection must be (examples, labels)")
    examples, labels = selection
    rows = Rows("selection", first.model, first.tokenizer, examples, labels, reading)
    evaluated = {digest: i for i, digest in enumerate(first.digests)}
    shared = [(i, evaluated[digest]) for i, digest in enumerate(rows.digests) if digest in evaluated]
    if shared:
        i, j = shared[0]
        raise ValueError(
            f"{len(shared)} selection rows are evaluation rows too, the first selection[0][{i}] = examples[{j}]; "
            "choose triggers on other rows than those they are measured on"
        )
    if choose_by not in (ALL, *rows.class_names):
        names = ", ".join(rows.class_names)
        raise ValueError(f"choose_by={choose_by!r} must be 'all' or a class of the selection rows: {names}")
    return rows


@dataclass(frozen=True)
class _Run:
    """How predictions are made: in which batches, and where they are kept."""

    batch_size: int
    folder: Path | None
    progress: bool

    def predictions(self, rows: Rows, conditions: Sequence[Condition], what: str) -> list[list[int]]:
        """Return the class of every row under every condition; `what` names the file that keeps them."""
        texts, count = rows.texts, len(rows.items)
        batches = texts.batches(rows.items, self.batch_size)
        inserts = [[condition.rules, list(map(list, condition.pieces))] for condition in conditions]
        run: dict[str, Any] = {"attack": data_digest(inserts), "length": texts.longest}
        run |= texts.fingerprint(rows.items, rows.gold, batches)
        # Row r under condition c is example c * count + r.
        repeated = [[c * count + row for row in batch] for c in range(len(conditions)) for batch in batches]
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

        def work(batch: list[int]) -> Tensor:
            condition = conditions[batch[0] // count]
            some = [rows.items[example % count] for example in batch]
            items = [inserted(item, condition.pieces, condition.rules, texts.longest)[0] for item in some]
            with torch.no_grad():
                return texts.predictions(texts.logits(texts.inputs(items)))

        file = self.folder / f"{what}.jsonl" if self.folder else None
        with evaluation_mode(rows.model):
            values = run_batches(repeated, work, run, resume=file, progress=self.progress, desc=f"attack: {what}")
        return [[int(v) for v in part] for part in values.reshape(len(conditions), count).tolist()]


def _chosen(run: _Run, victim: Victim, k: int, choose_by: str) -> Choice:
    """Return the k triggers that cost most accuracy on the selection rows."""
    rows = victim.rows
    predicted = torch.tensor(run.predictions(rows, victim.conditions(range(len(victim.triggers))), "selection"))
    gold = rows.gold.cpu()
    counted = torch.ones_like(gold, dtype=torch.bool)
    if choose_by != ALL:
        counted = gold == rows.classes[rows.class_names.index(choose_by)]
    clean, *accuracy = (predicted == gold)[:, counted].double().mean(1).tolist()
    best = sorted(range(len(accuracy)), key=lambda i: accuracy[i])[:k]  # ties: the higher score
    return Choice(len(gold), len(accuracy), choose_by, clean, accuracy, best)
