"""How a tokenizer writes words and characters: its scheme, taken from the tokenizer itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

SCHEMES = (
    *("wordpiece", "bytes", "sentencepiece", "ends", "byte_ends", "continued"),
    *("byte_characters", "characters", "words"),
)
"""
- wordpiece: "##" before a piece that continues a word (BERT);
- bytes: the characters of byte-level BPE, "Ġ" for a space (GPT-2, Llama 3, Qwen);
- sentencepiece: "▁" for a space, "<0xE4>" for a byte (Llama 2, T5, Gemma);
- ends: "</w>" behind a piece that ends a word (XLM, FlauBERT, BioGPT); byte_ends: the same of byte-level BPE (CLIP);
- continued: "@@" behind a piece that the next one continues (BERTweet, PhoBERT);
- byte_characters: a token for each byte (ByT5); characters: for each character (CANINE);
- words: each token is a word.
"""

INSIDE, CONTINUED, ENDS = "##", "@@", "</w>"
BYTE_SPACE, SPACE = "Ġ", "▁"

_PROBES: tuple[tuple[str, list[str], str], ...] = (
    ("wordpiece", ["a", "##b"], "ab"),
    ("continued", ["a@@", "b"], "ab"),
    ("bytes", ["a", "Ġb"], "a b"),
    ("sentencepiece", ["▁a", "▁b"], "a b"),
    ("ends", ["a</w>", "b</w>"], "a b"),
    ("byte_characters", ["Ã", "©"], "é"),
    ("characters", ["a", "b"], "ab"),
)
"""Tokens that only a tokenizer of the scheme reads as that text."""


def scheme_of(tokenizer: Any) -> str:
    """Return a tokenizer's scheme, one of `SCHEMES`: what its model says, or else how it puts tokens together.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> scheme_of(load_demo_model()[1])
        'wordpiece'
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    model = getattr(core, "model", None)
    before = repr(getattr(core, "pre_tokenizer", ""))
    if type(model).__name__ == "WordPiece":
        return "wordpiece"
    if getattr(model, "end_of_word_suffix", None) == ENDS:
        return "byte_ends" if "ByteLevel" in before else "ends"
    if getattr(model, "continuing_subword_prefix", None) == INSIDE:
        return "wordpiece"
    join: Callable[[list[str]], str] = getattr(tokenizer, "convert_tokens_to_string", "".join)
    found = next((scheme for scheme, tokens, text in _PROBES if _reads(join, tokens, text)), "words")
    if found != "words" or model is None:
        return found
    if "ByteLevel" in before:  # a tokenizer without a decoder
        return "bytes"
    return "sentencepiece" if "Metaspace" in before else "words"


def _reads(join: Callable[[list[str]], str], tokens: list[str], text: str) -> bool:
    """Return whether a tokenizer puts tokens together to a text."""
    try:
        return join(list(tokens)).strip() == text
    except Exception:  # tokens that it cannot have
        return False


def guessed(tokens: Sequence[str]) -> str:
    """Return the scheme that tokens look like: of files that do not say it."""
    if any(token.startswith(INSIDE) for token in tokens):
        return "wordpiece"
    if any(token.startswith(BYTE_SPACE) for token in tokens):
        return "bytes"
    if any(token.startswith(SPACE) for token in tokens):
        return "sentencepiece"
    if any(token.endswith(ENDS) for token in tokens):
        return "ends"
    return "continued" if any(token.endswith(CONTINUED) for token in tokens) else "words"
