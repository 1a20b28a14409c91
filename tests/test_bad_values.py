"""Every argument of every public function, given what it cannot be: an error that names it and says what would be
right, before the model runs, with nothing written."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from results import explanation, faithfulness, generation, importance, pictured
from seeing import clip, pictures
from toy import tiny_bert, tiny_llama, tiny_tokenizer, unchanged

import captum_attattr
from captum_attattr import (
    attack,
    attribution_tree,
    effectiveness_analysis,
    explain,
    extract_triggers,
    find_patterns,
    plot_heads,
    pruning_curve,
)

FUNCTIONS = {name: getattr(captum_attattr, name) for name in captum_attattr.__all__}
FUNCTIONS = {name: function for name, function in FUNCTIONS.items() if inspect.isfunction(function)}
TEXTS, LABELS = ["a b c", "good film", "bad plot man", "work a d e"], [0, 1, 2, 1]
QUIET = {"progress": False}

NOT_ONE = [object, b"a", 1 + 0j, [], {}]
"""No value of an argument that is one number or one name."""
COUNTS: list[Any] = [*NOT_ONE, "3", 0, -1, 1.5, math.nan, math.inf, True, np.float32(2), torch.tensor([1, 2])]
SHARES: list[Any] = [*NOT_ONE, "0.1", -0.1, 1.5, math.nan, -math.inf, 10**400, np.array([0.1, 0.2]), True]
NAMES: list[Any] = [*NOT_ONE, "nonsense", "", 3, math.nan, True, "\0"]
PATHS: list[Any] = [3, 1.5, "", "a\0b", [], {}, object, torch.tensor(1)]
TOKENIZERS: list[Any] = [None, "bert-base-uncased", 3, object, {}]
MODELS: list[Any] = [None, "bert-base-uncased", 3, object, torch.nn.Linear(2, 2), torch.nn.Module]
RESULTS: list[Any] = [None, 3, "a", b"", object, {}, math.nan, torch.ones(2)]
SEVERAL = [*RESULTS, [], [3]]
NO_TEXTS: list[Any] = [None, 3, math.nan, b"a b", object, [], [None], [b"a b"], [3.5], [True]]
LISTS: list[Any] = [3, math.nan, object, True, [None], [object]]
WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(("batch_size", "n_steps", "internal_batch_size", "max_nodes", "top", "k", "candidates"), COUNTS),
    **dict.fromkeys(("control_seeds", "random_seeds", "pairs", "max_words", "most", "window", "shard_bytes"), COUNTS),
    **dict.fromkeys(("max_new_tokens", "steps", "max_length"), COUNTS),
    "seed": [*NOT_ONE, "3", 1.5, math.nan, True],
    **dict.fromkeys(("ratio", "threshold", "share"), SHARES),
    "tolerance": [*NOT_ONE, "0.1", -0.1, 0, math.nan, True, None],
    "min_score": [*NOT_ONE, "0.1", math.nan, True, None],
    "temperature": [*NOT_ONE, "0.1", -1, 0, math.nan, True],
    "scale": [*NOT_ONE, "2", -1, 0, math.nan, math.inf, True],
    **dict.fromkeys(("algorithm", "method", "output", "unit", "removal", "rules", "keep", "format", "order"), NAMES),
    "baseline": [each for each in NAMES if each != 3],
    **dict.fromkeys(("attribution", "path", "task", "view", "sign", "segment", "choose_by", "style"), NAMES),
    **dict.fromkeys(("control", "kind", "plotlyjs", "dtype"), NAMES),
    "orders": [*LISTS, ["sideways"], [], ["least", "least"]],
    "truncate": [*NOT_ONE, "3", 0, -1, 1.5, math.nan, None],
    **dict.fromkeys(("folder", "resume"), PATHS),
    **dict.fromkeys(("tokenizer", "processor"), TOKENIZERS),
    "images": [None, 3, math.nan, object, b"a", {}, [], [None], [3], np.zeros((2, 8, 8, 3)), "nowhere.png", ["a\0b"]],
    "text": [3, b"a", object, "", " ", [], ["a"], ["a", 3], {}],
    "model": MODELS,
    **dict.fromkeys(("explanation", "report", "generation", "effectiveness", "tree", "first", "second"), RESULTS),
    **dict.fromkeys(("trigger", "figure"), RESULTS),
    **dict.fromkeys(("explanations", "importance", "importances", "triggers", "curves", "results"), SEVERAL),
    **dict.fromkeys(("texts", "examples"), NO_TEXTS),
    "labels": [3, "a", math.nan, object, [], LABELS[:3], ["nonsense"] * 4, [math.nan] * 4, [99] * 4, [None] * 4],
    "target": [math.nan, "nonsense", 99, -1, 1.5, object, b"a", [], [0], [99] * 4, True],
    "contrast": [math.nan, "nonsense", 99, -1, 1.5, object, b"a", [], [0], [99] * 4, True],
    "layers": [3, "a", math.nan, object, [], [99], [-1], [0, 0], [0.5], [True], [None]],
    "layer": [*NOT_ONE, "0", 99, -1, 0.5, math.nan, True],
    "head": [*NOT_ONE, "0", 99, -1, 0.5, math.nan, True],
    "fractions": [*LISTS, 0.1, [], [0.0], [2.0], [-1.0], [0.2, 0.1], [0.1, 0.1], [math.nan], ["0.1"]],
    "counts": [*LISTS, [0], [-1], [1.5], [2, 1], [1, 1], ["1"], [math.nan]],
    "scores": [*LISTS, [], [torch.ones(3)], ["a"]],
    "edges": [*LISTS, [], [(0, 0, 0)], [(99, 0, 0, 0)], [(0, 0, 0, -1)], ["a"]],
    "heads": [3, "a", math.nan, object, [99], [(99, 0)], {99: [0]}, {0: [99]}, {0: [-1]}, {0: ["0"]}],
    "attributions": [*LISTS, "nonsense", [], ["nonsense"], {"a": 3}, {3: {}}, ["random", "random"]],
    "title": [3, b"a", object, []],
    "effects": [3, "a", object, {}],
    "prompt": [None, 3.5, b"a", "", [], {}, object, ["a", "b"]],
    "generated": [3, b"a", "", [], [10**6], [-1], [1.5], object],
    "begin": [*NOT_ONE, "0", -1, 99, 0.5, math.nan, True],
    "end": [*NOT_ONE, "0", -1, 99, 0, 0.5, math.nan, True],
    "names": [3, "ab", ["a"], [1, 2], object],
    "name": [3, b"a", object, []],
    "root": [*NOT_ONE, "0", -1, 99, 0.5, math.nan, True],
    "selection": [3, "ab", [TEXTS], (TEXTS, LABELS[:2]), object],
    "transfer": [3, "a", object, {"other": 3}, {3: 3}],
    "vocabulary": [3, object, [], [3], [None]],
    "metric": [3, "nonsense", "", object()],
    "together": [3, "no", [], object],
    "inputs": [3, "a", [], object],
    "patterns": [3, "a", [3], None, object],
    "text_or_pair": [None, 3, b"a", [], ("a", "b", "c"), object],
}
"""What is wrong for an argument, by its name."""
FITS = {
    ("attack", "control"): [None],
    ("attribution_tree", "layers"): [[0, 0]],
    ("compare_pruning", "random_seeds"): [0],
    ("explain_generation", "contrast"): ["nonsense"],  # one token, the unknown one
    ("explain_iter", "texts"): [[]],
    ("extract_triggers", "labels"): [[99] * 4],
    ("save_triggers", "triggers"): [b"", {}, []],
}
"""Values that are wrong for others of that name only."""
SAID = {
    "attributions": "attribution",
    "examples": "text",
    "explanations": "explanation",
    "first": "importance|HeadImportance",
    "second": "importance|HeadImportance",
    "heads": "head|layer",
    "labels": "label",
    "model": "model|attention layer",
    "names": "name",
    "patterns": "pattern",
    "selection": "selection|labels for",
    "text_or_pair": "text",
    "vocabulary": "text|vocabulary",
}
"""What a message calls an argument, where that is not its name."""


@functools.cache
def bert() -> Any:
    return tiny_bert().eval()


@functools.cache
def llama() -> Any:
    return tiny_llama().eval()


@functools.cache
def seer() -> Any:
    return clip()


@functools.cache
def explained() -> list[Any]:
    return explain(bert(), tiny_tokenizer(), TEXTS, n_steps=2, **QUIET)


@functools.cache
def triggers() -> Any:
    return extract_triggers(explained(), min_score=0.0)[:1]


@functools.cache
def patterns() -> Any:
    return find_patterns(bert(), tiny_tokenizer(), TEXTS, LABELS, n_steps=2, **QUIET)


@functools.cache
def curve() -> Any:
    return pruning_curve(bert(), tiny_tokenizer(), TEXTS, LABELS, ranking(), steps=2, **QUIET)


@functools.cache
def attacked() -> Any:
    return attack(bert(), tiny_tokenizer(), TEXTS, LABELS, triggers(), control=None, **QUIET)


@functools.cache
def effective() -> Any:
    return effectiveness_analysis(bert(), tiny_tokenizer(), TEXTS, LABELS, n_steps=2, **QUIET)


def ranking() -> Any:
    config = bert().config
    return importance(config.num_hidden_layers, config.num_attention_heads)


TOLD = {"model": bert, "tokenizer": tiny_tokenizer}
TEXTUAL = {**TOLD, "texts": lambda: TEXTS}
WRITING = {"model": llama, "tokenizer": tiny_tokenizer, "prompt": lambda: "a b"}
LABELLED = {**TOLD, "examples": lambda: TEXTS, "labels": lambda: LABELS}
SEEING = {"model": lambda: seer()[0], "processor": lambda: seer()[1], "images": lambda: pictures(2)}
DRAWN = {"explanation": lambda: explained()[0]}
CALLS: dict[str, dict[str, Callable[[], Any]]] = {
    "attack": {**LABELLED, "triggers": triggers},
    "attention_layers": {"model": bert},
    "attribution_tree": {**DRAWN, "threshold": lambda: 0.01},
    "compare_attributions": TEXTUAL,
    "compare_pruning": {**LABELLED, "importances": lambda: [ranking()]},
    "compose_triggers": {"triggers": triggers},
    "effectiveness_analysis": LABELLED,
    "explain": TEXTUAL,
    "explain_dataset": {**TEXTUAL, "folder": lambda: Path("archive")},
    "explain_generation": {**WRITING, "generated": lambda: " c d"},
    "explain_images": {**SEEING, "text": lambda: "a b"},
    "explain_iter": TEXTUAL,
    "extract_triggers": {"explanations": explained},
    "faithfulness": {**TOLD, "explanations": explained},
    "find_patterns": LABELLED,
    "head_importance": LABELLED,
    "importance_correlation": {"first": importance, "second": importance},
    "insert_trigger": {"trigger": lambda: triggers()[0], "text_or_pair": lambda: "a b", "tokenizer": tiny_tokenizer},
    "load_pruned": {"path": lambda: Path("pruned")},
    "load_tree": {"path": lambda: Path("tree.json")},
    "load_triggers": {"path": lambda: Path("triggers.json")},
    "mask_heads": {"model": bert, "heads": lambda: {0: [0]}},
    "plot_attack": {"report": attacked},
    "plot_attention": DRAWN,
    "plot_correlation": {"first": importance, "second": importance},
    "plot_effectiveness": {"effectiveness": effective},
    "plot_faithfulness": {"results": faithfulness},
    "plot_flow": DRAWN,
    "plot_generation": {"generation": generation},
    "plot_heads": {"importance": importance},
    "plot_image": {"explanations": pictured},
    "plot_pruning_curve": {"curves": curve},
    "plot_tokens": {"explanations": lambda: explanation(2, 2, 4)},
    "plot_tree": {"tree": lambda: attribution_tree(explained()[0], 0.01)},
    "prune_heads": {"model": tiny_bert, "heads": lambda: {0: [0]}},
    "pruning_curve": {**LABELLED, "importance": ranking},
    "removal_effects": {**TOLD, **DRAWN},
    "save_pruned": {"model": bert, "path": lambda: Path("pruned")},
    "save_tree": {"tree": lambda: attribution_tree(explained()[0], 0.01), "path": lambda: Path("tree.json")},
    "save_triggers": {"triggers": triggers, "path": lambda: Path("triggers.json")},
    "token_scores": TEXTUAL,
    "tree_text": {"tree": lambda: attribution_tree(explained()[0], 0.01)},
    "triggers_of": {"patterns": patterns},
    "write_html": {"figure": lambda: plot_heads(importance()), "path": lambda: Path("page.html")},
    "write_image": {"figure": lambda: plot_heads(importance()), "path": lambda: Path("page.svg")},
    "write_report": {**DRAWN, "threshold": lambda: 0.01, "path": lambda: Path("page.html")},
}
NAMED_PATHS = {"explain", "explain_dataset", "explain_generation", "explain_images", "explain_iter"}
"""Functions whose `path` is the integral's, by its name."""


def arguments(name: str) -> list[str]:
    """The arguments of a function but for its switches, which tests/test_arguments.py goes through."""
    found = inspect.signature(FUNCTIONS[name]).parameters.values()
    return [p.name for p in found if p.kind is not p.VAR_KEYWORD and not isinstance(p.default, bool)]


def wrong(name: str, argument: str) -> list[Any]:
    """What is wrong for an argument of a function; None is right where it is the default."""
    values = PATHS if argument == "path" and name not in NAMED_PATHS else WRONG[argument]
    values = NAMES if argument == "scale" and name.startswith("plot_") else values
    default = inspect.signature(FUNCTIONS[name]).parameters[argument].default
    fits = FITS.get((name, argument), []) + [None] * (default is None)
    return [value for value in values if not any(value is each or repr(value) == repr(each) for each in fits)]


CASES = [(name, argument) for name in FUNCTIONS for argument in arguments(name)]


def call(name: str, argument: str, value: Any) -> None:
    """Call a function with all that it needs, but for one argument."""
    given = {each: make() for each, make in CALLS[name].items()} | {argument: value}
    if "progress" in inspect.signature(FUNCTIONS[name]).parameters:
        given["progress"] = False
    model = given.get("model")
    hooks = []
    if isinstance(model, torch.nn.Module):
        hooks.append(model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran")))
    try:
        found = FUNCTIONS[name](**given)
        if name == "explain_iter":
            next(found)
        if name == "mask_heads":
            found.__enter__()
    finally:
        for hook in hooks:
            hook.remove()


def test_the_table_has_every_function_and_argument():
    assert CALLS.keys() == FUNCTIONS.keys()
    assert len(CASES) > 250
    assert sum(len(wrong(*case)) for case in CASES) > 2000


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_wrong_value_is_told_before_any_work(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with unchanged(bert()):
        for value in wrong(name, argument):
            with pytest.raises((TypeError, ValueError, OSError)) as told:
                call(name, argument, value)
            message, where = str(told.value), str(told.traceback[-1].path)
            assert "captum_attattr" in where, (value, where, message)
            assert re.search(SAID.get(argument, argument), message), (value, message)
            assert len(message) > len(argument) + 10, (value, message)
            assert not list(tmp_path.iterdir()), value
