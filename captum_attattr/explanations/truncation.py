"""Texts to tokens, cut to a length as BERT's original code cuts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def tokenize(tokenizer: Any, parts: Sequence[Any], limit: int | None, **more: Any) -> Any:
    """Tokenize one text or pair; of a pair that is too long, cut the longer text first.

    Where both texts of a pair are cut and there is room for an odd count of tokens, the first text keeps one more, as
    in BERT's original code, the published AttAttr code and transformers' slow tokenizers; fast ones give it to the
    second.

    Args:
        tokenizer: a transformers tokenizer.
        parts: the text, or the two; or their words.
        limit: most tokens, special ones included; None to cut nothing.
        more: options of the tokenizer: is_split_into_words, add_special_tokens.

    Returns:
        The tokenizer's (1, T) tensors, with "special_tokens_mask".
    """
    options = {"return_tensors": "pt", "return_special_tokens_mask": True, "verbose": False} | more
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    encoding = tokenizer(*parts, **options, **cut)
    if limit is None or len(parts) == 1 or not encoding.is_fast or tokenizer.truncation_side != "right":
        return encoding
    kept = Counter(encoding.sequence_ids(0))
    if kept[1] != kept[0] + 1:
        return encoding
    core = tokenizer.backend_tokenizer
    core.no_truncation()  # the tokenizer sets its truncation again when it is called
    first, second = (core.encode(p, is_pretokenized=not isinstance(p, str), add_special_tokens=False) for p in parts)
    if len(first) == kept[0]:  # not cut: only the second was, or none
        return encoding
    first.truncate(kept[0] + 1)
    second.truncate(kept[1] - 1)
    whole = core.post_process(first, second)
    values = {"input_ids": whole.ids, "token_type_ids": whole.type_ids, "attention_mask": whole.attention_mask}
    values["special_tokens_mask"] = whole.special_tokens_mask
    return type(encoding)(
        {name: values[name] for name in encoding}, encoding=whole, tensor_type="pt", prepend_batch_axis=True
    )
