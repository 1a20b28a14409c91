"""What triggers do to a model, measured: beside the clean rows, beside random words, chosen on other rows."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.checks import at_least
from captum_attattr.explanations.encoding import Text, encode_text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.digests import data_digest, text_digests
from captum_attattr.triggers.extraction import Trigger, check_trigger
from captum_attattr.triggers.insertion import Piece, check_room, inserted, pieces_of
from captum_attattr.triggers.report import AttackReport, Choice, Outcome, VictimResult

CONTROLS = ("random words", None)

Victim = tuple[nn.Module, Any] | tuple[nn.Module, Any, Sequence[Text], Sequence[Any]]
"""(model, tokenizer) or, on rows of its own, (model, tokenizer, examples, labels)."""


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
    transfer: Mapping[str, Victim] | None = None,
    name: str = "model",
    batch_size: int = 32,
    truncate: bool | int = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> AttackReport:
    """Insert triggers into examples, and measure what that does to a model's accuracy.

    Every trigger stands beside the clean examples and beside its control: random words, as many, at the same
    relative places of the same segments, drawn uniformly from the distinct tokens of `vocabulary` (word pieces
    for word pieces). The best triggers are chosen on rows of their own: chosen on the rows that they are then
    measured on, the best of many look stronger than they are. The random words are not chosen: beside them a
    trigger shows that it does more than any words would, not that no search could find as much.

    Under `torchrun`, with a process group, every process does a share of the batches.

    Args:
        model: a transformers model for sequence classification (or a causal language model, whose classes are
            the tokens that come next).
        tokenizer: its tokenizer.
        examples, labels: the evaluation rows, texts or pairs, and their gold classes, numbers or names.
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
        batch_size, truncate, progress: as in `head_importance`. The rows that become too long by their trigger
            lose tokens at their end; see `insert_trigger`.
        resume: a folder, made if it is missing; what is done is kept there, and an interrupted attack goes on.

    Returns:
        Accuracy per gold class and overall, its interval, drop, flip rate and the examples that flipped, for the
        clean rows, each trigger and each control; `table()` for a terminal, `plot_attack` for a figure.

    Raises:
        TypeError, ValueError: no trigger, a trigger without a word, labels that do not match, numbers out of
            range, selection rows that are evaluation rows too, a model that gives a score, a text without room.

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
    triggers = _checked_triggers(triggers)
    if control not in CONTROLS:
        raise ValueError(f"control={control!r} is unknown; use 'random words' or None")
    k, candidates = at_least(1, k, "k"), at_least(1, candidates, "candidates")
    seeds = range(at_least(1, control_seeds, "control_seeds") if control else 0)
    if not isinstance(transfer or {}, Mapping):
        raise TypeError(f"transfer must be a dict of models by their names, got {type(transfer).__name__}")
    if name in (transfer or {}):
        raise ValueError(f"two models are called {name!r}; choose another name")
    first = _Rows(name, model, tokenizer, examples, labels, truncate)
    victims = [first, *(_other(who, victim, first, truncate) for who, victim in (transfer or {}).items())]
    choosing = None
    if selection is not None:
        choosing = _selection_rows(first, selection, truncate)
        _check_choice(choosing, choose_by)
        triggers = triggers[:candidates]
    # All that can be refused is refused before the first row is read by a model.
    pieces = {id(rows): rows.pieces(triggers, tokenizer) for rows in victims}
    if choosing is not None:
        pieces[id(choosing)] = choosing.pieces(triggers, tokenizer)
    texts = vocabulary if vocabulary is not None else (selection[0] if selection is not None else examples)
    words = [_Words(rows.tokenizer, texts) if seeds else None for rows in victims]
    for rows, drawn_from in zip(victims, words, strict=True):
        if drawn_from:
            for part in pieces[id(rows)]:
                drawn_from.beside(part)
    run = _Run(batch_size, _folder(resume), progress)
    best, choice = list(range(len(triggers))), None
    if choosing is not None:
        choice = _chosen(run, choosing, triggers, pieces[id(choosing)], k, choose_by)
        best = choice.best
    results = []
    for number, (rows, drawn_from) in enumerate(zip(victims, words, strict=True)):
        chosen = [(triggers[i], pieces[id(rows)][i]) for i in best]
        results.append(_measured(run, rows, chosen, seeds, drawn_from, f"model{number}"))
    return AttackReport(results, choice)


class _Rows:
    """A model, and the rows on which triggers meet it."""

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, examples: Any, labels: Any, truncate: bool | int
    ) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.texts = TextModel(model, tokenizer, truncate)
        if self.texts.regression or self.texts.multilabel:
            gives = "a score" if self.texts.regression else "several labels at once"
            raise ValueError(f"{name}: an attack is measured on classes; the model gives {gives}")
        checked = self.texts.encode_all(examples)
        self.gold = self.texts.labels(labels, len(checked))
        # Whole, since a trigger is inserted before an end is cut off; those that are not too long are whole already.
        long = [item.length == self.texts.longest for item in checked]
        self.items = [
            self.texts.for_model(encode_text(tokenizer, item.index, item.text)) if full else item
            for item, full in zip(checked, long, strict=True)
        ]
        self.examples = examples

    def pieces(self, triggers: Sequence[Trigger], source: Any) -> list[list[Piece]]:
        """The triggers as this model's tokenizer has them; `source` is that of the model that they come from.

        Raises:
            ValueError: a trigger that it cannot have, or a row without room for one.
        """
        found = [pieces_of(trigger, self.tokenizer, source) for trigger in triggers]
        for trigger, pieces in zip(triggers, found, strict=True):
            for item in self.items if trigger.rules != "reference" else ():
                if self.texts.longest - item.length < len(pieces):
                    check_room(item, pieces, self.texts.longest)
        return found

    @property
    def digests(self) -> list[str]:
        return text_digests(item.text for item in self.items)

    def result(self, outcomes: list[Outcome]) -> VictimResult:
        gold = self.gold.tolist()
        classes = sorted(set(gold))
        return VictimResult(self.name, classes, [self.texts.label(number) for number in classes], gold, outcomes)


def _checked_triggers(triggers: Any) -> list[Trigger]:
    if isinstance(triggers, Trigger) or not isinstance(triggers, Sequence):
        raise TypeError(f"triggers must be a list of Trigger, got {type(triggers).__name__}")
    if not triggers:
        raise ValueError("triggers is empty: give at least one trigger")
    for number, trigger in enumerate(triggers):
        check_trigger(trigger, f"triggers[{number}]")
        if not trigger.tokens and trigger.rules != "reference":
            raise ValueError(f"triggers[{number}] holds no word, so there is nothing to insert")
    return list(triggers)


def _other(name: str, victim: Any, first: _Rows, truncate: bool | int) -> _Rows:
    if not isinstance(victim, tuple | list) or len(victim) not in (2, 4):
        raise TypeError(f"transfer[{name!r}] must be (model, tokenizer) or (model, tokenizer, examples, labels)")
    # By name: the other model may have the classes in another order.
    examples, labels = first.examples, [first.texts.label(number) for number in first.gold.tolist()]
    model, tokenizer = victim[:2]
    if len(victim) == 4:
        examples, labels = victim[2:]
    try:
        return _Rows(name, model, tokenizer, examples, labels, truncate)
    except ValueError as error:
        raise ValueError(f"transfer[{name!r}]: {error}") from error


def _folder(resume: Any) -> Path | None:
    """The folder of an interrupted attack."""
    if resume is None:
        return None
    if not isinstance(resume, str | os.PathLike):
        raise TypeError(f"resume must be the path of a folder, got {type(resume).__name__}: {resume!r}")
    if Path(resume).exists() and not Path(resume).is_dir():
        raise ValueError(f"resume must be a folder, and {str(resume)!r} is none")
    return Path(resume)


def _selection_rows(first: _Rows, selection: Any, truncate: bool | int) -> _Rows:
    if not isinstance(selection, tuple | list) or len(selection) != 2:
        raise TypeError("selection must be (examples, labels)")
    examples, labels = selection
    rows = _Rows("selection", first.model, first.tokenizer, examples, labels, truncate)
    places = {digest: place for place, digest in enumerate(first.digests)}
    shared = [(i, places[digest]) for i, digest in enumerate(rows.digests) if digest in places]
    if shared:
        i, place = shared[0]
        raise ValueError(
            f"{len(shared)} selection rows are evaluation rows too, the first selection[0][{i}] = examples[{place}]; "
            "choose triggers on other rows than those they are measured on"
        )
    return rows


def _check_choice(rows: _Rows, choose_by: str) -> None:
    names = rows.result([]).class_names
    if choose_by != "all" and choose_by not in names:
        raise ValueError(f"choose_by={choose_by!r} must be 'all' or a class of the selection rows: {', '.join(names)}")


@dataclass(frozen=True)
class _Run:
    """How predictions are made: in which batches, and where they are kept."""

    batch_size: int
    folder: Path | None
    progress: bool

    def predictions(self, rows: _Rows, conditions: Sequence[tuple[str, list[Piece]]], what: str) -> list[list[int]]:
        """The class of every row under every condition: (rules, tokens to insert)."""
        texts, count = rows.texts, len(rows.items)
        batches = texts.batches(rows.items, self.batch_size)
        about: dict[str, Any] = {"attack": data_digest([[rules, list(map(list, p))] for rules, p in conditions])}
        about |= {"length": texts.longest, **texts.fingerprint(rows.items, rows.gold, batches)}
        repeated = [[step * count + place for place in batch] for step in range(len(conditions)) for batch in batches]
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

        def work(places: list[int]) -> Tensor:
            rules, pieces = conditions[places[0] // count]
            items = [inserted(rows.items[p % count], pieces, rules, texts.longest)[0] for p in places]
            with torch.no_grad():
                return texts.predictions(texts.logits(texts.inputs(items)))

        file = self.folder / f"{what}.jsonl" if self.folder else None
        with evaluation_mode(rows.model):
            values = run_batches(repeated, work, about, resume=file, progress=self.progress, desc=f"attack: {what}")
        return [[int(v) for v in part] for part in values.reshape(len(conditions), count).tolist()]


def _chosen(
    run: _Run, rows: _Rows, triggers: Sequence[Trigger], pieces: Sequence[list[Piece]], k: int, choose_by: str
) -> Choice:
    """The k triggers that cost most accuracy on the selection rows."""
    conditions = [("default", []), *((t.rules, part) for t, part in zip(triggers, pieces, strict=True))]
    found = torch.tensor(run.predictions(rows, conditions, "selection"))
    result = rows.result([])
    gold = torch.tensor(result.gold)
    counted = torch.ones_like(gold, dtype=torch.bool)
    if choose_by != "all":
        counted = gold == result.classes[result.class_names.index(choose_by)]
    accuracy = (found == gold)[:, counted].double().mean(1)
    best = sorted(range(len(triggers)), key=lambda i: float(accuracy[i + 1]))[:k]  # ties: the higher score
    clean, *by_trigger = accuracy.tolist()
    return Choice(len(gold), len(triggers), choose_by, clean, by_trigger, best)


def _measured(
    run: _Run,
    rows: _Rows,
    triggers: Sequence[tuple[Trigger, list[Piece]]],
    seeds: Sequence[int],
    words: _Words | None,
    what: str,
) -> VictimResult:
    """Clean rows, triggers and controls of one model; `what` names its file."""
    conditions: list[tuple[str, list[Piece]]] = [("default", [])]
    outcomes: list[tuple[str, Trigger | None]] = [("clean", None)]
    for number, (trigger, pieces) in enumerate(triggers):
        conditions.append((trigger.rules, pieces))
        outcomes.append(("trigger", trigger))
        if words and pieces:
            for seed in seeds:
                conditions.append((trigger.rules, words.drawn(pieces, f"{seed} {number}")))
                outcomes.append(("control", trigger))
    found = run.predictions(rows, conditions, what)
    made = []
    for (kind, source), (_, pieces), predictions in zip(outcomes, conditions, found, strict=True):
        tokens = rows.tokenizer.convert_ids_to_tokens([piece.number for piece in pieces])
        made.append(Outcome(kind, list(tokens), source, predictions))
    return rows.result(made)


class _Words:
    """The distinct tokens of some texts, by kind: beginnings of words, and the pieces that follow."""

    def __init__(self, tokenizer: Any, texts: Sequence[Text]) -> None:
        self.tokenizer = tokenizer
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise ValueError("vocabulary must be a list of texts, at least one")
        barred = set(tokenizer.all_special_ids)
        self.by_kind: dict[tuple[bool, bool], list[int]] = {}
        found: set[int] = set()
        for number, text in enumerate(texts):
            item = encode_text(tokenizer, number, text)
            ids = item.encoding["input_ids"][0].tolist()
            found.update(i for i, special in zip(ids, item.special, strict=True) if not special and i not in barred)
        for token_id in sorted(found):
            self.by_kind.setdefault(self._kind(token_id), []).append(token_id)

    def _kind(self, token_id: int) -> tuple[bool, bool]:
        token = str(self.tokenizer.convert_ids_to_tokens(token_id))
        return token.startswith("##"), token.startswith(("Ġ", "▁"))

    def beside(self, pieces: list[Piece]) -> list[int]:
        """The tokens that are not a trigger's own.

        Raises:
            ValueError: there is none.
        """
        own = {piece.number for piece in pieces}
        every = [number for numbers in self.by_kind.values() for number in numbers if number not in own]
        if not every:
            raise ValueError("vocabulary holds no token beside the trigger's; give more texts")
        return every

    def drawn(self, pieces: list[Piece], seed: str) -> list[Piece]:
        """Random tokens in place of a trigger's, none of them its own."""
        draw = random.Random(seed)
        own, every = {piece.number for piece in pieces}, self.beside(pieces)
        fresh = []
        for piece in pieces:
            alike = [number for number in self.by_kind.get(self._kind(piece.number), []) if number not in own]
            fresh.append(piece._replace(number=draw.choice(alike or every)))
        return fresh
