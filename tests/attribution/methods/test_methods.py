"""The methods beside integrals: against their formulas, written out with transformers' own attentions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy import CLS, SEP, LinearInAttention, tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import LayerAttAttr, attention_layers, explain
from captum_attattr.attribution.inputs import make_batch
from captum_attattr.attribution.methods.maps import Maps, Request
from captum_attattr.attribution.methods.reading import reading
from captum_attattr.attribution.methods.table import ATTRIBUTIONS

IDS = torch.tensor([[CLS, 5, 7, 9, 11, SEP], [CLS, 8, 6, 20, 13, SEP], [CLS, 30, 31, 5, 5, SEP]])


def probability(model: Any) -> Any:
    def forward(ids: Tensor) -> Tensor:
        logits = model(ids).logits
        return (logits[:, -1] if logits.dim() == 3 else logits).softmax(-1)

    return forward


def request(model: Any, **options: Any) -> Request:
    return Request(attention_layers(model), make_batch(probability(model), IDS, None, 1), **options)


def written_out(model: Any, example: int) -> tuple[list[Tensor], list[Tensor]]:
    """A and dF/dA of every layer (H, T, T), by transformers' output_attentions and autograd."""
    model.set_attn_implementation("eager")
    output = model(IDS[example : example + 1], output_attentions=True)
    logits = output.logits[:, -1] if output.logits.dim() == 3 else output.logits
    attentions = output.attentions
    gradients = torch.autograd.grad(logits.softmax(-1)[0, 1], attentions, allow_unused=True)
    return [a[0].detach() for a in attentions], [g[0] for g in gradients]


MODELS = {"encoder": tiny_bert, "decoder": tiny_llama}


@pytest.mark.parametrize("name", MODELS)
def test_gradient_attention_and_attention_are_what_autograd_gives(name):
    model = MODELS[name]()
    scored = ATTRIBUTIONS["gradient_attention"].maps(request(model, keep_attention=True))
    read = ATTRIBUTIONS["attention"].maps(request(model))
    for example in range(len(IDS)):
        attentions, gradients = written_out(model, example)
        for layer, (attention, gradient) in enumerate(zip(attentions, gradients, strict=True)):
            torch.testing.assert_close(scored.attributions[layer][example], attention * gradient, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(scored.attention[layer][example], attention)
            torch.testing.assert_close(read.attributions[layer][example], attention)
    assert scored.rows == read.rows == len(IDS)
    torch.testing.assert_close(scored.output, probability(model)(IDS)[:, 1].detach())


@pytest.mark.parametrize("name", MODELS)
def test_chefer_and_rollout_are_the_products_of_their_papers(name):
    model = MODELS[name]()
    row = 0 if name == "encoder" else -1  # what the output reads
    relevance = ATTRIBUTIONS["chefer"].maps(request(model)).attributions[0]
    share = ATTRIBUTIONS["rollout"].maps(request(model)).attributions[0]
    assert relevance.shape == share.shape == (len(IDS), 1, 6, 6)
    for example in range(len(IDS)):
        attentions, gradients = written_out(model, example)
        eye = torch.eye(6)
        gathered, mixed = eye, eye
        for attention, gradient in zip(attentions, gradients, strict=True):
            gathered = gathered + (attention * gradient).clamp(min=0).mean(0) @ gathered
            mixed = (attention.mean(0) + eye) / 2 @ mixed
        torch.testing.assert_close(relevance[example, 0, row], (gathered - eye)[row], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(share[example, 0, row], mixed[row])
        assert abs(float(share[example].sum()) - 1) < 1e-5  # the other rows are 0
    assert (relevance.sum((1, 2)) == relevance[:, 0, row]).all()


def test_the_output_reads_all_rows_of_a_mean():
    model = tiny_bert()

    def pooled(ids: Tensor) -> Tensor:
        return model.classifier(model.bert(ids).last_hidden_state.mean(1)).softmax(-1)

    asked = Request(attention_layers(model), make_batch(pooled, IDS, None, 1))
    scored = ATTRIBUTIONS["gradient_attention"].maps(asked)
    assert reading(scored.attributions[-1]).all()
    share = ATTRIBUTIONS["rollout"].maps(asked).attributions[0]
    torch.testing.assert_close(share.sum((1, 2, 3)), torch.ones(len(IDS)))
    assert (share[:, 0].sum(-1) - 1 / 6).abs().max() < 1e-6  # each query a sixth


def test_random_scores_are_the_example_s_and_skip_what_cannot_be_read():
    model = tiny_llama()
    whole = ATTRIBUTIONS["random"].maps(request(model))
    alone = ATTRIBUTIONS["random"].maps(
        Request(attention_layers(model), make_batch(probability(model), IDS[1:2], None, 1))
    )
    for together, single in zip(whole.attributions, alone.attributions, strict=True):
        assert torch.equal(together[1:2], single)
        assert not together.triu(1).any()
        assert (together.tril() > 0).sum() > 0.99 * len(IDS) * together.shape[1] * 21
    assert not torch.equal(whole.attributions[0][0], whole.attributions[0][1])


def test_gradient_methods_agree_where_the_model_is_linear_in_its_attention():
    model = LinearInAttention(layers=3)
    layers = attention_layers(model.bert)
    scored = ATTRIBUTIONS["gradient_attention"].maps(Request(layers, make_batch(model, IDS, None, 1)))
    lattr = LayerAttAttr(model, layers)
    for path in ("layer", "joint"):
        maps = lattr.attribute(IDS, target=1, path=path)
        for ours, integral in zip(scored.attributions, maps, strict=True):
            torch.testing.assert_close(ours, integral, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [name for name, entry in ATTRIBUTIONS.items() if entry.maps])
def test_chunks_do_not_matter(method):
    model = tiny_bert()
    whole: Maps = ATTRIBUTIONS[method].maps(request(model))
    single: Maps = ATTRIBUTIONS[method].maps(request(model, limit=1))
    for together, alone in zip(whole.attributions, single.attributions, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------ through explain

TEXTS = ["a good film", "bad plot", "a man work"]


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_explain_gives_every_method(method, tmp_path):
    model, tokenizer = tiny_bert(), tiny_tokenizer()
    explanations = explain(model, tokenizer, TEXTS, attribution=method, progress=False)
    usual = explain(model, tokenizer, TEXTS, progress=False)
    entry = ATTRIBUTIONS[method]
    for one, other in zip(explanations, usual, strict=True):
        tokens = len(one.tokens)
        depth, heads = (3 if entry.layers else 1), (4 if entry.heads else 1)
        assert one.attribution == method
        assert one.attributions.shape == (depth, heads, tokens, tokens)
        assert one.value == pytest.approx(other.value, abs=1e-6)
        assert one.target == other.target
        assert one.token_scores().shape == (tokens,)
        assert (one.attention is None) == (not entry.heads)
        if entry.maps:
            assert one.delta.isnan().all()
            assert one.error.isnan().all()
            assert not one.nodes.any()
        loaded = type(one).load(one.save(tmp_path / "one.safetensors"))
        assert loaded.attribution == method
        assert torch.equal(loaded.attributions, one.attributions)
        assert len(repr(one)) <= 500
        assert "<iframe" in one._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribution": "attatr"}, "attribution='attatr' is unknown; use one of attattr, attattr_joint,"),
        ({"attribution": None}, "attribution=None is unknown"),
        ({"attribution": 3}, "attribution=3 is unknown"),
        ({"attribution": "attattr_joint", "path": "layer"}, "is 'attattr' with path='joint', not 'layer'"),
        ({"attribution": "gradient_attention", "path": "joint"}, "path='joint' is of 'attattr', not of"),
        ({"attribution": "attention", "baseline": "sink"}, "baseline='sink': 'attention' follows no path"),
        ({"attribution": "rollout", "layers": [0]}, "layers: 'rollout' puts the maps of all layers together"),
        ({"attribution": "chefer", "n_steps": 8}, "n_steps, method, tolerance and max_nodes are of an integral"),
        ({"attribution": "random", "tolerance": 0.1}, "n_steps, method, tolerance and max_nodes are of an integral"),
    ],
)
def test_contradictions_are_refused_before_the_model_runs(options, message):
    model = tiny_bert()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        explain(model, tiny_tokenizer(), TEXTS, progress=False, **options)


def test_what_needs_heads_refuses_maps_without():
    from captum_attattr import attribution_tree, plot_attention, plot_flow, write_report

    explanation = explain(tiny_bert(), tiny_tokenizer(), TEXTS[:1], attribution="rollout", progress=False)[0]
    uses = [
        attribution_tree,
        plot_attention,
        plot_flow,
        lambda one: write_report(one, "x.html"),
        lambda one: one.strongest(),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="needs a map for each layer and head, and 'rollout' puts heads together"):
            use(explanation)


def test_strongest_are_named():
    explanation = explain(tiny_bert(), tiny_tokenizer(), TEXTS[:1], progress=False)[0]
    edge = explanation.strongest(1)[0]
    assert edge._fields == ("layer", "head", "query", "key", "score")
    assert edge.score == pytest.approx(float(explanation.attributions.max()))
    assert edge.score == float(explanation.attributions[edge.layer, edge.head, edge.query, edge.key])
