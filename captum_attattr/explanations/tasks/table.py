"""The tasks by name."""

from __future__ import annotations

from captum_attattr.explanations.tasks.answer_span import AnswerSpan
from captum_attattr.explanations.tasks.whole_text import WholeText

TASKS: dict[str, type[WholeText]] = {
    "classification": WholeText,
    "next_token": WholeText,
    "question_answering": AnswerSpan,
}
