"""Models that accelerate has placed: its hooks change nothing, and offloaded weights are refused by name.

Models on two devices are in `on_a_device.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from explanations.test_explain import assert_same
from head_examples import GOLD, TEXTS
from toy import tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import Explanation, explain, explain_dataset, explain_iter, head_importance

PARTS = {
    "bert": ["bert.embeddings", "bert.encoder", "bert.pooler", "dropout", "classifier"],
    "llama": ["model", "lm_head"],
}
MAKERS: dict[str, Any] = {"bert": tiny_bert, "llama": tiny_llama}


def placed(name: str, place: str = "cpu", **options: Any) -> Any:
    """A model with hooks on every module, the last part at another place."""
    model, parts = MAKERS[name](), PARTS[name]
    device_map = dict.fromkeys(parts, "cpu") | {parts[-1]: place}
    return dispatch_model(model, device_map, main_device="cpu", force_hooks=True, **options)


def explained(model: Any, **options: Any) -> list[Explanation]:
    return explain(model, tiny_tokenizer(), ["good film", "a b c d"], n_steps=3, progress=False, **options)


@pytest.mark.parametrize(
    "options", [{}, {"path": "joint"}, {"target": 1, "contrast": 0}, {"baseline": "sink"}], ids=str
)
@pytest.mark.parametrize("name", MAKERS)
def test_hooks_of_accelerate_change_nothing(name, options):
    model = placed(name)
    assert hasattr(model, "hf_device_map")
    for one, two in zip(explained(model, **options), explained(MAKERS[name](), **options), strict=True):
        assert_same(one, two, atol=1e-6)
    assert hasattr(model, "_hf_hook")


@pytest.mark.parametrize("method", ["attattr", "taylor", "attention", "loss_difference"])
def test_hooks_of_accelerate_change_no_importance(method):
    hooked, plain = (
        head_importance(model, tiny_tokenizer(), TEXTS, GOLD, method, progress=False)
        for model in (placed("bert"), tiny_bert())
    )
    torch.testing.assert_close(hooked.scores, plain.scores, rtol=1e-5, atol=1e-7)


FUNCTIONS: dict[str, Any] = {
    "explain": lambda model, folder: explain(model, tiny_tokenizer(), TEXTS),
    "explain_iter": lambda model, folder: explain_iter(model, tiny_tokenizer(), TEXTS),
    "explain_dataset": lambda model, folder: explain_dataset(model, tiny_tokenizer(), TEXTS, folder / "archive"),
    "head_importance": lambda model, folder: head_importance(model, tiny_tokenizer(), TEXTS, GOLD),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("where", ["disk", "cpu"])
def test_offloaded_weights_are_refused_by_name(function, where, tmp_path: Path):
    model = placed("bert", "disk", offload_dir=tmp_path / "weights") if where == "disk" else cpu_offload(tiny_bert())
    with pytest.raises(ValueError, match=r"weights of BertForSequenceClassification are not there: '.*' is on the m"):
        FUNCTIONS[function](model, tmp_path)
    assert not (tmp_path / "archive").exists()
