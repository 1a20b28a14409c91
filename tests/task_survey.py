"""Explains answers, tags, masked words and similarities by a tiny random model of every family that has the class.

    python tests/task_survey.py --write docs/task_survey.md     # all, a few minutes
    python tests/task_survey.py bert deberta-v2                 # some

A family is explained if F of its explanation is, to 1e-5, the model's own output on the same input, worked out here.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from surveys import Row as BaseRow
from surveys import cell, main, versions
from tiny_families import tiny_model
from torch import Tensor
from torch.nn.functional import cosine_similarity
from toy import tiny_tokenizer
from transformers.models.auto import modeling_auto

from captum_attattr import Explanation, UnsupportedModelError, explain
from captum_attattr.model.sample_inputs import first_line

CLOSE = 1e-5
NONE, YES, REFUSED, UNBUILT, BROKEN = "", "yes", "refused", "not built", "broken"
TOKENIZER = tiny_tokenizer(mask_token="[MASK]")


def span(model: Any, one: Explanation) -> Tensor:
    output = model(**one.inputs)
    first, last = one.positions
    return output.start_logits.softmax(-1)[0, first] * output.end_logits.softmax(-1)[0, last]


def at_token(model: Any, one: Explanation) -> Tensor:
    return model(**one.inputs).logits[0, one.positions[0]].float().softmax(-1)[one.target]


def cosine(model: Any, one: Explanation) -> Tensor:
    inputs: Any = one.inputs
    others = {name.removeprefix("other_"): value for name, value in inputs.items() if name.startswith("other_")}
    given = {name: value for name, value in inputs.items() if not name.startswith("other_")}
    return cosine_similarity(*(model(**part).last_hidden_state[0].mean(0) for part in (given, others)), dim=0)


PAIR = ("a b good film", "man work plot bad c d")
TASKS: dict[str, tuple[str, Any, Callable[[Any, Explanation], Tensor]]] = {
    "question_answering": ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES", PAIR, span),
    "token_classification": ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES", "a b good film man", at_token),
    "masked_lm": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "a b [MASK] film man", at_token),
    "similarity": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", PAIR, cosine),
}
"""The classes of each task, a text, and F by hand; similarity is tried with the encoders of masked language models."""


@dataclass
class Row(BaseRow):
    """What came out for one family: of each task one of the outcomes, and why."""

    tasks: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def said(self) -> str:
        return "; ".join(f"{task}: {said}" for task, said in self.tasks.items() if said)


def survey(family: str) -> Row:
    """Try all tasks with one family."""
    row = Row(family, "no class")
    for task in TASKS:
        row.tasks[task], reason = tried(task, family)
        if reason:
            row.reasons[task] = reason
    outcomes = set(row.tasks.values())
    row.outcome = next((one for one in (BROKEN, YES, REFUSED, UNBUILT) if one in outcomes), "no class")
    row.detail = "; ".join(f"{task}: {reason}" for task, reason in row.reasons.items())
    return row


def tried(task: str, family: str) -> tuple[str, str]:
    """What comes out for one task, and why."""
    names, text, by_hand = TASKS[task]
    name = getattr(modeling_auto, names).get(family)
    if name is None:
        return NONE, ""
    if task == "similarity":
        name = modeling_auto.MODEL_MAPPING_NAMES.get(family)
    names_ = name if isinstance(name, list | tuple) else [name]
    wanted = [getattr(transformers, one) for one in names_ if hasattr(transformers, one or "")]
    try:
        model = tiny_model(family, wanted)
    except NotImplementedError as error:
        return UNBUILT, str(error)
    if model.config.is_encoder_decoder:
        model.config.decoder_start_token_id = getattr(model.config, "decoder_start_token_id", None) or 1
    if task == "similarity" and model.config.is_encoder_decoder:
        model = model.get_encoder()
    try:
        model(**_inputs(model))
    except Exception as error:
        return UNBUILT, f"it does not run on what a tokenizer gives: {first_line(error)}"
    try:
        one = explain(model, TOKENIZER, [text], task=task, n_steps=2, progress=False)[0]
    except (UnsupportedModelError, TypeError, ValueError) as error:
        return REFUSED, first_line(error)
    except Exception as error:
        return BROKEN, first_line(error)
    with torch.no_grad():
        difference = abs(float(by_hand(model, one)) - (one.value or 0.0))
    if not difference <= CLOSE:
        return BROKEN, f"F is {one.value}, and the model's own output differs by {difference:.1e}"
    return YES, ""


def _inputs(model: Any) -> dict[str, Tensor]:
    ids = TOKENIZER(PAIR[0], return_tensors="pt")
    return {name: ids[name] for name in ids if name in inspect.signature(model.forward).parameters}


def table(rows: Sequence[Row]) -> str:
    """The page."""
    rows = [row for row in rows if any(row.tasks.values())]
    lines = ["# Tasks, family by family", ""]
    lines.append(
        f"`python tests/task_survey.py --write docs/task_survey.md` with {versions()}: a tiny random model of every "
        "family that transformers ships with the class of the task (of similarity, the encoder of a masked language "
        "model, mean of all tokens). Explained (yes): F of the explanation is the model's own output on the same "
        f"input, to {CLOSE:g}."
    )
    lines += ["", f"{len(rows)} families."]
    for task in TASKS:
        counts = Counter(row.tasks[task] for row in rows if row.tasks[task])
        lines.append(f"{task}: {', '.join(f'{count} {said}' for said, count in counts.most_common())}.")
    lines += ["", f"| family | {' | '.join(TASKS)} |", f"|---|{'---|' * len(TASKS)}"]
    lines += [f"| {row.family} | {' | '.join(row.tasks[task] for task in TASKS)} |" for row in rows]
    lines += ["", "Not explained, and why:", ""]
    lines += [f"- {row.family}, {task}: {cell(why)}" for row in rows for task, why in row.reasons.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(__doc__, survey, Row, table)
