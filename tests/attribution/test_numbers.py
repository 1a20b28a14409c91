"""Numbers of any library are numbers, in every argument; truth values and what is not finite are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import LAYERS, probabilities, sentences, tiny_bert

from captum_attattr import LayerAttAttr, attention_layers
from captum_attattr.attribution.integration import PathIntegral
from captum_attattr.checks import real

MODEL = tiny_bert()
IDS = sentences()
VECTORS = MODEL.bert.embeddings.word_embeddings(IDS).detach()

INTEGERS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "np.int64": np.int64,
    "np.uint8": np.uint8,
    "0-d array": np.array,
    "0-d tensor": torch.tensor,
    "0-d int32 tensor": lambda value: torch.tensor(value, dtype=torch.int32),
}
REALS: dict[str, Callable[[float], Any]] = {
    "float": float,
    "np.float64": np.float64,
    "np.float16": np.float16,
    "np.longdouble": np.longdouble,
    "0-d array": np.array,
    "0-d tensor": torch.tensor,
    "Fraction": Fraction,
}
NO_NUMBERS: dict[str, Any] = {
    "True": True,
    "np.True_": np.True_,
    "True tensor": torch.tensor(True),
    "text": "1",
    "bytes": b"1",
    "complex": 1j,
    "list": [1],
    "dict": {},
}
NO_INTEGERS = NO_NUMBERS | {"float": 2.0, "np.float64": np.float64(2), "float tensor": torch.tensor(2.0)}
NOT_FINITE: dict[str, Any] = {
    f"{value} of {name}": kind(value)
    for value in (math.nan, math.inf, -math.inf)
    for name, kind in REALS.items()
    if name != "Fraction"
}


def integrate(**options: Any) -> PathIntegral:
    lattr = LayerAttAttr(probabilities(MODEL), attention_layers(MODEL))
    return lattr.integrate(IDS, **{"target": 1, "n_steps": 2} | options)


def of_vectors(**options: Any) -> PathIntegral:
    """The same with inputs that real numbers are baselines of."""
    lattr = LayerAttAttr(lambda vectors: MODEL(inputs_embeds=vectors).logits, attention_layers(MODEL))
    return lattr.integrate(VECTORS, **{"target": 1, "n_steps": 2} | options)


def maps(result: PathIntegral) -> Tensor:
    return torch.stack(result.attributions)


# Each argument: an integer that it takes, and how it is given.
TAKE_INTEGERS: dict[str, tuple[int, Callable[[Any], PathIntegral]]] = {
    "n_steps": (3, lambda value: integrate(n_steps=value)),
    "n_steps of Captum's rules": (3, lambda value: integrate(n_steps=value, method="riemann_trapezoid")),
    "n_steps of a left sum": (3, lambda value: integrate(n_steps=value, method="riemann_left")),
    "max_nodes": (9, lambda value: integrate(n_steps=None, tolerance=0.1, max_nodes=value)),
    "internal_batch_size": (5, lambda value: integrate(internal_batch_size=value)),
    "target": (2, lambda value: integrate(target=value)),
    "target in a list": (2, lambda value: integrate(target=[0, value, 1])),
    "target in a tuple": (2, lambda value: integrate(target=(value,))),
    "target in tuples in a list": (2, lambda value: integrate(target=[(0,), (value,), (1,)])),
    "baselines": (7, lambda value: integrate(baselines=value)),
    "baselines in a tuple": (7, lambda value: integrate(baselines=(value,))),
    "attention_baselines": (1, lambda value: integrate(attention_baselines=value)),
}
TAKE_REALS: dict[str, tuple[float, Callable[[Any], PathIntegral]]] = {
    "tolerance": (0.125, lambda value: integrate(n_steps=None, tolerance=value)),
    "baselines": (0.25, lambda value: of_vectors(baselines=value)),
    "attention_baselines": (0.25, lambda value: integrate(attention_baselines=value)),
}


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("argument", TAKE_INTEGERS)
def test_integers_of_every_library(argument: str, kind: str) -> None:
    value, call = TAKE_INTEGERS[argument]
    assert torch.equal(maps(call(INTEGERS[kind](value))), maps(call(value)))


@pytest.mark.parametrize("kind", REALS)
@pytest.mark.parametrize("argument", TAKE_REALS)
def test_reals_of_every_library(argument: str, kind: str) -> None:
    value, call = TAKE_REALS[argument]
    assert torch.equal(maps(call(REALS[kind](value))), maps(call(value)))


@pytest.mark.parametrize("kind", NO_INTEGERS)
@pytest.mark.parametrize("argument", [name for name in TAKE_INTEGERS if "baselines" not in name])
def test_no_integers(argument: str, kind: str) -> None:
    name = argument.split()[0]
    with pytest.raises((TypeError, ValueError), match=name):
        TAKE_INTEGERS[argument][1](NO_INTEGERS[kind])


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("argument", TAKE_REALS)
def test_no_numbers(argument: str, kind: str) -> None:
    with pytest.raises((TypeError, ValueError), match=argument.removesuffix("s")):
        TAKE_REALS[argument][1](NO_NUMBERS[kind])


@pytest.mark.parametrize("kind", NOT_FINITE)
@pytest.mark.parametrize("argument", TAKE_REALS)
def test_numbers_that_are_not_finite(argument: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}=.* must be (finite|a number between 0 and 1)"):
        TAKE_REALS[argument][1](NOT_FINITE[kind])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_attention_baselines_with_an_entry_that_is_not_finite(layer: int, value: float) -> None:
    tensors = [torch.zeros(1, 1, 6, 6) for _ in range(LAYERS)]
    tensors[layer][0, 0, 3, 5] = value
    with pytest.raises(ValueError, match=rf"attention_baselines\[{layer}\] has entries that are not finite"):
        integrate(attention_baselines=tensors)


@pytest.mark.parametrize("store", ["cpu", "cpu:0", torch.device("cpu"), None], ids=str)
def test_devices(store: Any) -> None:
    assert torch.equal(maps(integrate(store=store)), maps(integrate()))


@pytest.mark.parametrize("store", ["disk", "", "cpu:x", True, np.True_, 1.0, b"cpu", ["cpu"], np.float64(1)], ids=repr)
def test_no_devices_are_refused_before_the_model_runs(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODEL, "forward", lambda *args, **kwargs: pytest.fail("the model has run"))
    with pytest.raises((TypeError, ValueError), match="store="):
        integrate(store=store)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", INTEGERS)
def test_devices_by_index(kind: str) -> None:
    assert integrate(store=INTEGERS[kind](0)).output.device == torch.device("cuda:0")


@pytest.mark.parametrize("kind", REALS)
def test_real(kind: str) -> None:
    number = real(REALS[kind](0.25))
    assert type(number) is float
    assert number == 0.25


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_not_real(kind: str) -> None:
    assert real(NO_NUMBERS[kind]) is None
