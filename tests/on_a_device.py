"""Every public function that takes a model, with the model on another device: the numbers of the CPU.

`test_devices.py` runs it in a process of its own, with `--device second` where no device is chosen.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import seeing
import torch
import transformers
from device import chosen
from families import FAMILIES
from sharded import shard
from torch import Tensor, nn
from toy import PAD, bert_config, sentences, tiny_bart, tiny_bert, tiny_llama, tiny_tokenizer, tiny_writer

import captum_attattr
from captum_attattr import (
    LayerAttAttr,
    Trigger,
    attack,
    attention_layers,
    attribution_tree,
    compare_attributions,
    compare_pruning,
    effectiveness_analysis,
    explain,
    explain_dataset,
    explain_generation,
    explain_images,
    explain_iter,
    extract_triggers,
    faithfulness,
    find_patterns,
    head_importance,
    load_pruned,
    mask_heads,
    plot_attention,
    plot_flow,
    plot_heads,
    plot_tree,
    prune_heads,
    pruning_curve,
    removal_effects,
    save_pruned,
    token_scores,
    write_report,
)
from captum_attattr.heads import latency
from captum_attattr.heads.scoring import METHODS

pytestmark = pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")

TEXTS = ["good film a b", "a bad plot", "man"]
LABELS = [0, 2, 1]
QUIET = {"progress": False}
HEADS = [(0, 0), (0, 1), (1, 2), (1, 3)]  # two groups of the decoder's keys and values


def family(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = next(family for family in FAMILIES if family.name == name).build()
    model.config.pad_token_id = PAD  # the tokenizer's
    return model


BUILD: dict[str, Callable[[], nn.Module]] = {
    "BERT": partial(tiny_bert, num_hidden_layers=2),
    "Llama": partial(family, "Llama"),
    "Llama (language)": tiny_llama,
    "DeBERTa": partial(family, "DeBERTa"),  # attention behind a softmax of its own, not transformers' interface
    "BART": tiny_bart,
}
# On two devices: these modules on the chosen one, all others on the CPU, which takes no index from there.
SHARDED: dict[str, tuple[str, ...]] = {
    "BERT": ("bert.embeddings", "bert.encoder.layer.0"),
    "Llama": ("model.embed_tokens", "model.rotary_emb", "model.layers.0"),
    "Llama (language)": ("model.embed_tokens", "model.rotary_emb", "model.layers.0"),
    "BART": ("model.shared", "model.encoder", "model.decoder.embed_tokens", "model.decoder.embed_positions"),
}
Case = Callable[[Any, Path], Any]


def ids(model: nn.Module, batch: int = 2) -> Tensor:
    return sentences(batch).to(next(model.parameters()).device)


def mask(model: nn.Module) -> Tensor:
    """The second example has two tokens of padding."""
    return ids(model).ne(-1).long() * torch.tensor([[1] * 6, [1] * 4 + [0] * 2], device=ids(model).device)


def layer_attattr(model: Any, kind: str | None = None) -> LayerAttAttr:
    def forward(ids: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits
        return (logits[:, -1] if logits.dim() == 3 else logits).softmax(-1)

    return LayerAttAttr(forward, attention_layers(model, kind))


def attributed(model: Any, _: Path, **options: Any) -> Any:
    options = {"n_steps": 2, "target": [1, 2], "additional_forward_args": mask(model)} | options
    return layer_attattr(model).attribute(ids(model), return_convergence_delta=True, **options)


def integrated(model: Any, _: Path, **options: Any) -> Any:
    found = layer_attattr(model).integrate(ids(model), target=1, keep_attention=True, n_steps=2, **options)
    return found.attributions, found.attention, found.output, found.start, found.delta


def through_attention(model: Any, _: Path) -> Any:
    lattr = layer_attattr(model)
    attention = lattr.attention(ids(model), mask(model))
    return attention, lattr.attention_forward(*(a * 0.5 for a in attention), ids(model), mask(model))


def convergence_delta(model: Any, _: Path, path: str) -> Any:
    lattr = layer_attattr(model)
    maps = lattr.attribute(ids(model), target=1, n_steps=2, path=path)
    return lattr.compute_convergence_delta(maps, None, ids(model), target=1, path=path)


def told(explanations: Any) -> Any:
    return [(e.tokens, e.attributions, e.attention, e.value, e.probability, e.prediction) for e in explanations]


def explained(model: Any, folder: Path, how: str = "explain", **options: Any) -> Any:
    """Options that the function does not know yet are left out, and tried as soon as it does."""
    function: Any = {"explain": explain, "explain_iter": explain_iter, "explain_dataset": explain_dataset}[how]
    known = inspect.signature(function).parameters
    options = {name: value for name, value in options.items() if name in known}
    where = (folder / "archive",) if how == "explain_dataset" else ()
    return told(function(model, tiny_tokenizer(), TEXTS, *where, **{"n_steps": 2} | options, **QUIET))


def generated(model: Any, _: Path, **options: Any) -> Any:
    """Of a language model; a classifier writes nothing."""
    model = model if "CausalLM" in type(model).__name__ else tiny_llama().to(next(model.parameters()).device)
    given = {"generated": " man b", "n_steps": 8, **QUIET}
    found = explain_generation(model, tiny_tokenizer(), TEXTS[0], **given | options)
    written = explain_generation(model, tiny_tokenizer(), TEXTS[0], max_new_tokens=2, n_steps=8, **QUIET)
    return found.matrix, found.values, found.span(0, 2).scores, found.explanations[1].token_scores(), written.values


def translated(model: Any, _: Path, **options: Any) -> Any:
    """Of an encoder-decoder that writes."""
    given = {"generated": " man b", "n_steps": 8, **QUIET}
    writer = tiny_writer("Bart").to(next(model.parameters()).device)
    found = explain_generation(writer, tiny_tokenizer(), TEXTS[0], **given | options)
    written = explain_generation(writer, tiny_tokenizer(), TEXTS[0], max_new_tokens=2, n_steps=8, **QUIET)
    return found.matrix, found.values, found.span(0, 2).scores, found.explanations[1].cross, written.values


PARTS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "question_answering": ("BertForQuestionAnswering", [("a", "good film a b a")] * 3, [None, "a", "film a"]),
    "token_classification": ("BertForTokenClassification", TEXTS, [None, (2, 1), (1, 0)]),
    "masked_lm": ("BertForMaskedLM", ["a [MASK] b", "[MASK]  film", "[MASK] a [MASK]"], [None, "a", (3, "b")]),
    "similarity": ("BertModel", [("a b", "good"), ("film", "plot a"), ("a", "a b c")], ["first", "second", 0]),
}


def parted(model: Any, _: Path, task: str) -> Any:
    """Of decisions about a part of a text; a classifier has none."""
    name, texts, targets = PARTS[task]
    torch.manual_seed(0)
    tagger = (
        getattr(transformers, name)(bert_config(num_labels=2, vocab_size=64)).eval().to(next(model.parameters()).device)
    )
    tokenizer = tiny_tokenizer(mask_token="[MASK]")
    found = explain(tagger, tokenizer, texts, targets, task=task, n_steps=2, **QUIET)
    measured = faithfulness(tagger, tokenizer, found, fractions=[0.5, 1], task=task, **QUIET)
    return told(found), [each.positions for each in found], measured.keep


def pictured(model: Any, _: Path, similar: bool = False) -> Any:
    """Of models that see; a text classifier does not."""
    torch.manual_seed(0)
    made = seeing.clip() if similar else (seeing.classifier(), seeing.processor())
    seer, reading = made[0].to(next(model.parameters()).device), made[1]
    texts = {"candidates": ["good film", "bad"]} if similar else {}
    found = explain_images(seer, reading, seeing.pictures(), n_steps=2, **texts, **QUIET)
    measured = faithfulness(seer, reading, found, unit="token", fractions=[0.5, 1], **QUIET)
    return told(found), [each.picture for each in found], measured.keep


def scored(model: Any, _: Path) -> Any:
    return [one.scores for one in token_scores(model, tiny_tokenizer(), TEXTS, **QUIET)]


def kept_and_removed(model: Any, _: Path, unit: str, removal: str) -> Any:
    explanations = explain(model, tiny_tokenizer(), TEXTS, attribution="gradient_attention", **QUIET)
    found = faithfulness(model, tiny_tokenizer(), explanations, unit=unit, removal=removal, fractions=[0.1, 1], **QUIET)
    return found.full, found.empty, found.keep, found.delete, found.keep_top


def removed(model: Any, _: Path) -> Any:
    explanation = explain(model, tiny_tokenizer(), TEXTS[:1], n_steps=2, **QUIET)[0]
    return removal_effects(model, tiny_tokenizer(), explanation, explanation.strongest(4)).effects


def compared(model: Any, _: Path) -> Any:
    found = compare_attributions(model, tiny_tokenizer(), TEXTS, ["gradient_attention"], fractions=[0.1, 1], **QUIET)
    return [(one.keep, one.delete) for one in found.results.values()]


def importance(model: Any, method: str = "attattr", **options: Any) -> Any:
    steps = {"n_steps": 2} if "n_steps" in METHODS[method].options else {}
    return head_importance(model, tiny_tokenizer(), TEXTS, LABELS, method, **steps | options, **QUIET)


def curve(model: Any, _: Path, **options: Any) -> Any:
    scores = importance(model, "random")
    found = pruning_curve(model, tiny_tokenizer(), TEXTS, LABELS, scores, steps=3, **options, **QUIET)
    assert all(time > 0 for time in found.latency)
    return found.metric, found.loss, found.ranking, found.parameters


def comparison(model: Any, _: Path) -> Any:
    scores = [importance(model, "taylor"), importance(model, "random")]
    found = compare_pruning(model, tiny_tokenizer(), TEXTS, LABELS, scores, 2, random_seeds=1, **QUIET)
    assert all(time > 0 for curve in found.curves for time in curve.latency)
    return [(c.metric, c.loss, c.parameters) for c in (*found.curves, *found.random)]


def effectiveness(model: Any, _: Path) -> Any:
    found = effectiveness_analysis(model, tiny_tokenizer(), TEXTS, LABELS, n_steps=2, **QUIET)
    return found.metric, found.loss


def masked(model: Any, _: Path) -> Any:
    with mask_heads(model, HEADS):
        return model(input_ids=ids(model), attention_mask=mask(model)).logits


def pruned(model: Any, folder: Path) -> Any:
    """The pruned model, and what is loaded from its files, which stays on the CPU until it is moved."""
    cut = copy.deepcopy(model)
    prune_heads(cut, HEADS)
    loaded = load_pruned(save_pruned(cut, folder / "pruned")).to(next(model.parameters()).device)
    return [m(input_ids=ids(model), attention_mask=mask(model)).logits for m in (cut, loaded)]


def attacked(model: Any, _: Path) -> Any:
    triggers = [Trigger(("good", "man"), (0.2, 0.6), (0, 0), 1.0, 0, 0, 0, 1)]
    options = {"vocabulary": ["a", "b", "c"], "k": 1, "control_seeds": 1, **QUIET}
    report = attack(
        model, tiny_tokenizer(), TEXTS, LABELS, triggers, transfer={"again": (model, tiny_tokenizer())}, **options
    )
    return [vars(victim) for victim in report.victims]


def patterns(model: Any, _: Path) -> Any:
    found = find_patterns(model, tiny_tokenizer(), TEXTS, LABELS, n_steps=2, **QUIET)
    return [(pattern.tokens, pattern.interactions) for pattern in found]


def extracted(model: Any, _: Path) -> Any:
    triggers = extract_triggers(explain(model, tiny_tokenizer(), TEXTS, n_steps=2, **QUIET), min_score=0.0)
    return [(trigger.tokens, trigger.positions, trigger.score) for trigger in triggers]


def viewed(model: Any, folder: Path) -> Any:
    """Views take results, which are on the CPU wherever the model is: their numbers are read from the figures."""
    explanation = explain(model, tiny_tokenizer(), TEXTS[:1], n_steps=2, **QUIET)[0]
    assert {t.device.type for t in vars(explanation).values() if isinstance(t, Tensor)} == {"cpu"}
    scores, tree = importance(model), attribution_tree(explanation, threshold=0.0)
    write_report(explanation, folder / "report.html", importance=scores)
    figures = [plot_attention(explanation), plot_flow(explanation), plot_tree(tree, explanation), plot_heads(scores)]
    assert all(figure.to_json() for figure in figures)
    return explanation.token_scores(), explanation.strongest(3), scores.scores


BASELINES = {"zeros": None, "number": 0.1, "uniform": "uniform", "sink": "sink"}
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    " joint": {"path": "joint"},
    " sink": {"baseline": "sink"},
    " uniform": {"baseline": "uniform"},
    " logit": {"output": "logit"},
    " log_probability": {"output": "log_probability", "target": 1, "contrast": 0},
    " some layers": {"layers": [1]},
    " without attention": {"attention": False},
    " estimated": {"n_steps": None, "tolerance": 0.1},
    " small chunks": {"internal_batch_size": 2},
}
TABLE: dict[str, dict[str, Case]] = {
    "LayerAttAttr": {
        **{
            f"attribute {path} {name}": partial(attributed, path=path, attention_baselines=value)
            for path in ("layer", "joint")
            for name, value in BASELINES.items()
        },
        "attribute small chunks": partial(attributed, internal_batch_size=2),
        "integrate layer": partial(integrated, path="layer"),
        "integrate joint": partial(integrated, path="joint"),
        "integrate stored on the CPU": partial(integrated, store="cpu"),
        "attention_forward": through_attention,
        "compute_convergence_delta layer": partial(convergence_delta, path="layer"),
        "compute_convergence_delta joint": partial(convergence_delta, path="joint"),
    },
    "attention_layers": {"": lambda model, _: [layer.name for layer in attention_layers(model)]},
    "explain": {name: partial(explained, **options) for name, options in OPTIONS.items()},
    "explain_iter": {"": partial(explained, how="explain_iter", window=2)},
    "explain_dataset": {
        "": partial(explained, how="explain_dataset"),
        " float16": partial(explained, how="explain_dataset", dtype="float16"),
    },
    "methods": {
        f" {method}": partial(explained, attribution=method, n_steps=None)
        for method in ("gradient_attention", "attention", "chefer", "rollout", "alti", "attnlrp", "random")
    },
    "token_scores": {"": scored},
    "faithfulness": {
        " edge zero": partial(kept_and_removed, unit="edge", removal="zero"),
        " head sink": partial(kept_and_removed, unit="head", removal="sink"),
        " token replace": partial(kept_and_removed, unit="token", removal="replace"),
    },
    "removal_effects": {"": removed},
    "compare_attributions": {"": compared},
    "explain_generation": {
        "": generated,
        " prefix by prefix": partial(generated, path="layer"),
        " translated": translated,
    },
    "explain_images": {"": pictured, " similarity": partial(pictured, similar=True)},
    "explain, parts of texts": {f" {task}": partial(parted, task=task) for task in PARTS},
    "head_importance": {method: lambda model, _, m=method: importance(model, m).scores for method in METHODS},
    "mask_heads": {"": masked},
    "prune_heads, save_pruned, load_pruned": {"": pruned},
    "pruning_curve": {"": curve, " structural": partial(curve, structural=True)},
    "compare_pruning": {"": comparison},
    "effectiveness_analysis": {"": effectiveness},
    "attack": {"": attacked},
    "find_patterns": {"": patterns},
    "extract_triggers": {"": extracted},
    "views": {"": viewed},
}
# BERT runs all of the table; on other models, these rows, for what depends on the model's kind.
ALSO = {
    "LayerAttAttr": {
        "attribute layer zeros": ("Llama (language)", "DeBERTa", "BART"),
        "attribute joint sink": ("Llama (language)", "DeBERTa", "BART"),
        "attention_forward": ("DeBERTa", "BART"),
        "compute_convergence_delta joint": ("DeBERTa",),
    },
    "explain": {"": ("Llama", "Llama (language)", "DeBERTa"), " joint": ("Llama",)},
    "faithfulness": {" edge zero": ("Llama (language)", "DeBERTa")},
    "explain_generation": {"": ("Llama (language)",), " prefix by prefix": ("Llama (language)",)},
    "head_importance": {"attattr": ("DeBERTa",), "taylor": ("Llama", "DeBERTa")},
    "mask_heads": {"": ("Llama", "DeBERTa")},
    "prune_heads, save_pruned, load_pruned": {"": ("Llama", "DeBERTa")},
    "attack": {"": ("Llama", "DeBERTa")},
}


CUT = pytest.mark.skipif(
    chosen().type == "second",
    reason="the second device's tensors are of a class of their own, whose heads prune_heads refuses to cut",
)
CUTTING = ("prune_heads, save_pruned, load_pruned", "pruning_curve structural", "compare_pruning")


# What runs the model in a way of its own; all else is made of these.
SPREAD = (
    "LayerAttAttr",
    "explain",
    "methods",
    "token_scores",
    "faithfulness",
    "removal_effects",
    "explain_generation",
    "head_importance",
    "mask_heads",
    "prune_heads, save_pruned, load_pruned",
    "attack",
)


def cases() -> Iterator[Any]:
    for names, rows in TABLE.items():
        for row, case in rows.items():
            models = ["BERT", *ALSO.get(names, {}).get(row, ())]
            own = ("Llama (language)",) if names == "explain_generation" else SHARDED
            sharded = [f"{model}, two devices" for model in models if model in own and names in SPREAD]
            for model in models + sharded:
                marks = [CUT] * ((names + row) in CUTTING)
                yield pytest.param(model, case, id=f"{names} {row}-{model}".replace("  ", " "), marks=marks)


def flat(found: Any) -> Iterator[Any]:
    """Tensors, numbers and words, of whatever they are in."""
    if isinstance(found, dict):
        found = list(found.items())
    if isinstance(found, (list, tuple)):
        for part in found:
            yield from flat(part)
    elif not isinstance(found, (Tensor, float, int, str, type(None))):
        yield from flat(vars(found))
    else:
        yield found


def assert_same(here: Any, there: Any) -> None:
    here, there = list(flat(here)), list(flat(there))
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        if isinstance(one, (Tensor, float)):
            one, other = (torch.as_tensor(x).detach().cpu().double() for x in (one, other))
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5, equal_nan=True)
        else:
            assert one == other


@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_another_device_gives_the_numbers_of_the_cpu(
    name: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "_WARM_UP", 0)
    monkeypatch.setattr(latency, "_REPEATS", 1)
    name, _, sharded = name.partition(", ")
    here, there = BUILD[name]().cpu(), BUILD[name]()
    assert next(there.parameters()).device.type == chosen().type != "cpu"
    if sharded:
        there = shard(there, "cpu", SHARDED[name])
        assert {p.device.type for p in there.parameters()} == {"cpu", chosen().type}
    found = []
    for model, folder in ((here, tmp_path / "here"), (there, tmp_path / "there")):
        folder.mkdir()
        found.append(case(model, folder))
    assert_same(*found)


MIXED = (
    "x + torch.ones(3)",
    "torch.ones(2, 3) + x",
    "x.add_(torch.ones(3))",
    "x @ torch.ones(3)",
    "torch.cat([x, torch.ones(1, 3)])",
    "torch.where(torch.ones(2, 3) > 0, x, x)",
    "x.masked_fill(torch.ones(2, 3) > 0, 0)",
    "x.index_select(0, torch.tensor([1]))",
    "x.gather(1, torch.zeros(2, 1, dtype=torch.long))",
    "nn.functional.embedding(torch.tensor([1]), x)",
    "torch.rand(3, device=x.device, generator=torch.Generator())",
    "x.numpy()",
)
ALLOWED = (
    "x + torch.tensor(1.0)",
    "x[torch.tensor([1, 0])]",
    "x[[1, 0]]",
    "x[0, [2, 1]]",
    "torch.zeros(2, 3).copy_(x)",
    "torch.zeros_like(x).copy_(torch.ones(2, 3))",
    "x.new_tensor([1.0, 2.0])",
    "torch.tensor([1, 2], device=x.device)",
    "torch.as_tensor([1, 2], device=x.device)",
    "torch.arange(3, device=x.device)",
    "copy.deepcopy(x)",
)


@pytest.mark.parametrize("expression", MIXED)
def test_what_mixes_devices_is_an_error(expression: str) -> None:
    """So it is on CUDA, and so it has to be on the device that stands for it."""
    x = torch.arange(6.0).view(2, 3).to(chosen())
    with pytest.raises((RuntimeError, TypeError)):
        eval(expression, globals() | {"x": x})


@pytest.mark.parametrize("expression", ALLOWED)
def test_what_does_not_mix_devices_gives_the_numbers_of_the_cpu(expression: str) -> None:
    x = torch.arange(6.0).view(2, 3)
    here, there = (eval(expression, globals() | {"x": tensor}) for tensor in (x, x.to(chosen())))
    assert torch.equal(here, there.cpu())


def takes_a_model(name: str) -> bool:
    value = getattr(captum_attattr, name)
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # exceptions
        return False
    return any(p.name in ("model", "forward_func") and "str" not in str(p.annotation) for p in parameters)


def test_the_table_has_every_public_name_that_takes_a_model() -> None:
    """AttentionLayer takes one too, but only `attention_layers` makes it."""
    covered = {name for names in TABLE for name in names.split(", ")} | {"AttentionLayer"}
    assert {name for name in captum_attattr.__all__ if takes_a_model(name)} <= covered
