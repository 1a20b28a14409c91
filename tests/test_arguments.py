"""Arguments of every public function: a misspelt name says the nearest, a switch takes True or False only."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from toy import tiny_bert, tiny_tokenizer

import captum_attattr
from captum_attattr import Archive, explain, find_patterns, head_importance
from captum_attattr.checks import nearest

FUNCTIONS = {name: getattr(captum_attattr, name) for name in captum_attattr.__all__}
FUNCTIONS = {name: function for name, function in FUNCTIONS.items() if inspect.isfunction(function)}
FUNCTIONS |= {"Archive.verify": Archive.verify}
SWITCHES = [
    (name, parameter.name)
    for name, function in FUNCTIONS.items()
    for parameter in inspect.signature(function).parameters.values()
    if isinstance(parameter.default, bool) and parameter.annotation == "bool"
]
NO_SWITCHES: list[Any] = ["no", "True", "", b"no", 0, 1, 2, -1, 0.0, float("nan"), None, [], [True], {}, object, 1 + 0j]
NO_SWITCHES += [np.int64(1), np.float32(0), np.array([True]), torch.tensor(1), torch.tensor([True, False])]
OPEN_ENDED = {"head_importance", "effectiveness_analysis", "find_patterns", "load_pruned", "save_pruned"}


def dummies(name: str) -> list[None]:
    """Values for the arguments that have no default: what is wrong is said before they are looked at."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    empty, kinds = inspect.Parameter.empty, (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [None for each in parameters if each.default is empty and each.kind in kinds]


def test_there_are_switches_in_many_functions():
    assert len({name for name, _ in SWITCHES}) > 10
    assert len(SWITCHES) * len(NO_SWITCHES) > 300


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
def test_a_switch_is_true_or_false(name, switch):
    for value in NO_SWITCHES:
        with pytest.raises(TypeError) as told:
            FUNCTIONS[name](*dummies(name), **{switch: value})
        assert str(told.value).startswith(f"{switch} must be True or False, not {type(value).__name__}: "), value
        assert repr(value)[:20] in str(told.value)


@pytest.mark.parametrize("value", [np.bool_(False), torch.tensor(False), np.array(False)], ids=repr)
def test_truth_values_of_other_libraries_are_taken(value):
    assert len(explain(tiny_bert(), tiny_tokenizer(), ["a b"], n_steps=1, progress=value)) == 1


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - OPEN_ENDED - {"mask_heads"}))
def test_a_misspelt_argument_says_the_nearest(name):
    for known, each in inspect.signature(FUNCTIONS[name]).parameters.items():
        if len(known) > 4 and each.kind is inspect.Parameter.KEYWORD_ONLY:
            given = known[:2] + known[3:]  # a letter is missing
            with pytest.raises(TypeError, match=rf"has no argument '{given}'; did you mean '{known}'\?"):
                FUNCTIONS[name](*dummies(name), **{given: 1})
    with pytest.raises(TypeError, match=r"has no argument 'zzzzzz'$"):
        FUNCTIONS[name](*dummies(name), zzzzzz=1)


def test_options_that_go_further_are_checked_before_the_model_runs():
    model, tokenizer = tiny_bert(), tiny_tokenizer()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(TypeError, match=r"does not know toleranse; its options are .*; did you mean 'tolerance'\?"):
        head_importance(model, tokenizer, ["a b"], [0], toleranse=1)
    with pytest.raises(TypeError, match=r"does not know batchsize; .*; did you mean 'batch_size'\?"):
        head_importance(model, tokenizer, ["a b"], [0], batchsize=1)
    with pytest.raises(TypeError, match=r"has no argument 'n_step'; did you mean 'n_steps'\?"):
        find_patterns(model, tokenizer, ["a b"], n_step=3, progress=False)
    with pytest.raises(ValueError, match="n_steps"):
        find_patterns(model, tokenizer, ["a b"], n_steps=-3, progress=False)


def test_nothing_near_is_nothing_said():
    assert (nearest("zzz", ["texts"]), nearest("text", ["texts"])) == ("", "; did you mean 'texts'?")
