"""The tasks by name."""

from __future__ import annotations

from captum_attattr.explanations.tasks.answer_span import AnswerSpan
from captum_attattr.explanations.tasks.entity_tag import EntityTag
from captum_attattr.explanations.tasks.masked_word import MaskedWord
from captum_attattr.explanations.tasks.similarity import Similarity
from captum_attattr.explanations.tasks.whole_text import WholeText
from captum_attattr.explanations.tasks.written_text import WrittenText
from captum_attattr.model.wrappers import SIMILARITIES, TEXT_TO_TEXT

TASKS: dict[str, type[WholeText]] = {
    "classification": WholeText,
    "next_token": WholeText,
    "question_answering": AnswerSpan,
    "token_classification": EntityTag,
    "masked_lm": MaskedWord,
    **dict.fromkeys(SIMILARITIES, Similarity),
    TEXT_TO_TEXT: WrittenText,
}
