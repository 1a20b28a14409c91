"""Parity with the published AttAttr: its equations written out plainly, and the files that its scripts wrote."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from toy import sentences, tiny_bert
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, BertTokenizer

from captum_attattr import (
    LayerAttAttr,
    attack,
    attention_layers,
    explain,
    find_patterns,
    head_importance,
    pruning_curve,
    triggers_of,
)
from captum_attattr.published.pattern_files import read_patterns, write_patterns
from captum_attattr.published.tasks import task

# ---------------------------------------------------------------------------------------- plain equations


def split(states: Tensor, heads: int) -> Tensor:
    """(B, T, H D) as (B, H, T, D)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


class PlainBert:
    """F of one sentence, BERT's forward written out; one layer's attention can be given from outside."""

    def __init__(
        self, model: BertForSequenceClassification, ids: Tensor, target: int, segments: Tensor | None = None
    ) -> None:
        self.model = model
        self.heads = model.config.num_attention_heads
        self.embeddings = model.bert.embeddings(ids, token_type_ids=segments).detach()
        self.target = target

    def probability(self, layer: int | None = None, attention: Tensor | None = None) -> Tensor:
        hidden = self.embeddings
        self.attention = []
        for number, block in enumerate(self.model.bert.encoder.layer):
            parts = block.attention.self
            query, key, value = (split(linear(hidden), self.heads) for linear in (parts.query, parts.key, parts.value))
            weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
            self.attention.append(weights.detach())
            if number == layer:
                weights = attention
            context = (weights @ value).transpose(1, 2).flatten(2)
            hidden = block.attention.output(context, hidden)
            hidden = block.output(block.intermediate(hidden), hidden)
        pooled = self.model.bert.pooler(hidden)
        return self.model.classifier(pooled).softmax(-1)[0, self.target]

    def attribution(self, layer: int, steps: int, first: int = 0) -> Tensor:
        """Equation 5, summed over k = first .. first + steps - 1 instead of 1 .. steps."""
        self.probability()
        attention = self.attention[layer]
        total = torch.zeros_like(attention)
        for k in range(first, first + steps):
            scaled = (k / steps * attention).requires_grad_()
            (gradient,) = torch.autograd.grad(self.probability(layer, scaled), scaled)
            total += gradient / steps
        return attention * total


@pytest.fixture(scope="module")
def double() -> BertForSequenceClassification:
    return tiny_bert(seed=3, num_hidden_layers=2).double()


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize(("method", "first"), [("riemann_left", 0), ("riemann_right", 1)])
@pytest.mark.parametrize("target", [0, 2])
def test_named_rules_are_the_sums_of_paper_and_reference(double, method, first, steps, target):
    ids = sentences(2, 5, seed=4)
    layers = attention_layers(double)
    lattr = LayerAttAttr(lambda ids: double(ids).logits.softmax(-1), layers)
    maps = lattr.attribute(ids, target=target, method=method, n_steps=steps)
    for layer, map_ in enumerate(maps):
        for example in range(2):
            plain = PlainBert(double, ids[example : example + 1], target)
            expected = plain.attribution(layer, steps, first)
            assert map_[example].abs().max() > 1e-4
            torch.testing.assert_close(map_[example], expected[0], rtol=0, atol=1e-13)  # nodes exact too


def test_default_is_the_integral_itself(double):
    ids = sentences(1, 5, seed=4)
    lattr = LayerAttAttr(lambda ids: double(ids).logits.softmax(-1), attention_layers(double))
    maps = lattr.attribute(ids, target=1)
    for layer, map_ in enumerate(maps):
        # The mean of both sums is the trapezoidal rule, whose error falls with the square of the steps.
        left, right = (PlainBert(double, ids, 1).attribution(layer, 100, first) for first in (0, 1))
        exact = (left + right) / 2
        assert (map_ - exact).norm() < 1e-3 * exact.norm()
        assert (left - exact).norm() > 5e-3 * exact.norm()


# ------------------------------------------------------------------------------------ the published files

FOLDER = Path(__file__).parents[3] / "shared/data/reference"
EXAMPLES = (5, 16)


class Example(NamedTuple):
    ids: Tensor
    segments: Tensor
    target: int
    text: tuple[str, str]


class Reference:
    """The published code's tiny BERT and data, and what it wrote about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = folder / "tiny-base"
        self.model = AutoModelForSequenceClassification.from_pretrained(base).eval()
        self.tokenizer = BertTokenizer.from_pretrained(base)
        with open(folder / "mnli/dev_matched.tsv", encoding="utf-8", newline="") as file:
            self.rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]

    def lattr(self) -> LayerAttAttr:
        model = self.model

        def forward(ids: Tensor, segments: Tensor) -> Tensor:
            return model(ids, token_type_ids=segments).logits.softmax(-1)

        return LayerAttAttr(forward, attention_layers(model))

    def example(self, number: int) -> Example:
        text = self.rows[number][8], self.rows[number][9]
        encoding = self.tokenizer(*text, return_tensors="pt")
        ids, segments = encoding["input_ids"], encoding["token_type_ids"]
        with torch.no_grad():
            target = int(self.model(ids, token_type_ids=segments).logits.argmax())
        return Example(ids, segments, target, text)

    def maps(self, kind: str, number: int) -> list[Tensor]:
        """(H, T, T) of every layer: one JSON list in each line."""
        with gzip.open(self.folder / f"out/{kind}_zero_base_exp{number}.json.gz", "rt") as file:
            return [torch.tensor(json.loads(line)) for line in file]

    def tokens_and_predictions(self) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = json.loads((self.folder / "out/tokens_and_pred_45.json").read_text())
        return result


@pytest.fixture(scope="module")
def reference() -> Reference:
    if not FOLDER.is_dir():
        pytest.skip(f"the published code's output is not at hand: no folder {FOLDER}")
    return Reference(FOLDER)


@pytest.mark.parametrize("number", EXAMPLES)
def test_tokens_and_prediction_are_the_published_ones(reference, number):
    (entry,) = (e for e in reference.tokens_and_predictions() if e["index"] == number)
    example = reference.example(number)
    assert reference.tokenizer.convert_ids_to_tokens(example.ids[0].tolist()) == entry["tokens"]
    assert reference.model.config.id2label[example.target] == entry["pred"]
    with torch.no_grad():
        logits = reference.model(example.ids, token_type_ids=example.segments).logits
    torch.testing.assert_close(logits, torch.tensor(entry["pred_logits"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", EXAMPLES)
def test_riemann_left_with_64_steps_is_the_published_attribution(reference, number):
    example = reference.example(number)
    options = {"target": example.target, "additional_forward_args": example.segments}
    maps = reference.lattr().attribute(example.ids, method="riemann_left", n_steps=64, **options)
    published = reference.maps("attr", number)
    assert len(published) == len(maps) == 12
    for map_, expected in zip(maps, published, strict=True):
        torch.testing.assert_close(map_[0], expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_attention_is_the_published_one(reference):
    example = reference.example(5)
    attention = reference.lattr().attention(example.ids, example.segments)
    for layer, expected in zip(attention, reference.maps("att_score", 5), strict=True):
        torch.testing.assert_close(layer[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", EXAMPLES)
def test_default_is_the_integral_that_the_published_sum_approaches(reference, number):
    example = reference.example(number)
    lattr = reference.lattr()
    options = {"target": example.target, "additional_forward_args": example.segments}
    maps, deltas = lattr.attribute(example.ids, return_convergence_delta=True, **options)
    exact = lattr.attribute(example.ids, method="gausslegendre", n_steps=96, **options)
    for map_, expected, delta in zip(maps, exact, deltas, strict=True):
        assert (map_ - expected).norm() < 1e-3 * expected.norm()
        assert abs(delta) < 1e-3


def test_explain_gives_the_published_file_from_the_text_alone(reference):
    example = reference.example(5)
    one = explain(reference.model, reference.tokenizer, [example.text], method="riemann_left", n_steps=64)[0]
    assert one.target == example.target
    for map_, expected in zip(one.attributions, reference.maps("attr", 5), strict=True):
        torch.testing.assert_close(map_, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_the_plain_equations_agree_with_the_published_file(reference):
    """The two oracles of this file check each other."""
    example = reference.example(5)
    plain = PlainBert(reference.model, example.ids, example.target, example.segments).attribution(11, 64)
    published = reference.maps("attr", 5)[11]
    torch.testing.assert_close(plain[0], published, rtol=0, atol=2e-5 * float(published.abs().max()))


# ---------------------------------------------------------------------------------------------- heads

HEADS = {
    "attr": {"method": "attattr", "n_steps": 20, "rule": "riemann_left"},
    "taylor": {"method": "taylor_logits"},
}
RANKED = 12  # the first rows, from which the published scripts were told to rank heads


@pytest.mark.parametrize(("kind", "tolerance"), [("attr", 1e-4), ("taylor", 1e-3)])
def test_head_importance_and_pruned_accuracy_are_the_published_ones(reference, kind, tolerance):
    rows = task("mnli").read(reference.folder / "mnli", "dev")
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    parts = reference.model, reference.tokenizer
    found = head_importance(*parts, texts[:RANKED], labels[:RANKED], progress=False, **HEADS[kind])
    scores = (found.scores * found.count).flatten() if kind == "attr" else found.scores  # sums in the one file
    published = json.loads((reference.folder / f"out/head_importance_{kind}.json").read_text())
    torch.testing.assert_close(scores, torch.tensor(published, dtype=torch.double), rtol=tolerance, atol=0)
    curve = pruning_curve(*parts, texts, labels, found, progress=False)
    assert curve.metric == json.loads((reference.folder / f"out/prune_result_{kind}.json").read_text())
    assert curve.heads == [0, 14, 28, 43, 57, 72, 86, 100, 115, 129, 144]
    assert curve.shared_rows == RANKED


# ------------------------------------------------------------------------------------------- triggers


def test_patterns_are_the_published_ones(reference, tmp_path):
    rows = task("mnli").read(reference.folder / "mnli", "train")[:24]
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    options = {"n_steps": 32, "method": "riemann_left", "rules": "reference"}
    found = find_patterns(reference.model, reference.tokenizer, texts, labels, progress=False, **options)
    written = json.loads(write_patterns(found, tmp_path / "patterns.json").read_text())
    published = json.loads((reference.folder / "out/train_adver_pattern_exp0-24.json").read_text())
    for entry, expected in zip(written, published, strict=True):
        assert entry.pop("max_combined_attr") == pytest.approx(expected.pop("max_combined_attr"), rel=1e-4)
        assert entry == expected


def test_accuracy_under_the_published_patterns_is_the_published_one(reference):
    rows = task("mnli").read(reference.folder / "mnli", "dev")
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    patterns = read_patterns(reference.folder / "out/train_adver_pattern_exp0-24.json")
    triggers = triggers_of(patterns, min_score=0.0, rules="reference")
    report = attack(reference.model, reference.tokenizer, texts, labels, triggers, None, truncate=128, progress=False)
    (victim,) = report.victims
    found = [
        {of: victim.measure(outcome, of).accuracy for of in victim.class_names} for outcome, _ in victim.triggers()
    ]
    published = json.loads((reference.folder / "out/eval_train_pattern_one_exp0-500.json").read_text())
    assert found == [{of: entry[of] for of in victim.class_names} for entry in published]
    assert len(found) == len(patterns) - 1  # the one that the published script loses
