"""Values that come in: taken in any library's form, refused with the value and what would be right."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from results import explanation

from captum_attattr import Explanation, HeadImportance, LayerAttAttr, checks


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (2.5, 2.5),
        (np.float32(0.5), 0.5),
        (np.int8(3), 3.0),
        (torch.tensor(2), 2.0),
        (Fraction(1, 2), 0.5),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (True, None),
        (np.True_, None),
        ("1", None),
        (None, None),
        (1j, None),
        ([1], None),
        (torch.zeros((), device="meta"), None),
    ],
)
def test_real_numbers(value, expected):
    assert checks.real(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(2).to_sparse(),
        torch.empty(2, 2, device="meta"),
        torch.eye(2).to(torch.float8_e4m3fn),
        torch.eye(2, dtype=torch.cfloat),
        torch.eye(2, dtype=torch.bool),
        "maps",
        [["a"]],
        None,
    ],
    ids=range(8),
)
def test_arrays_that_hold_no_numbers_here_are_refused_by_name(value):
    with pytest.raises(TypeError, match=r"^maps must be "):
        checks.tensor("maps", value, ("a", "b"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("probability", 10**400, "probability must be finite, not inf"),
        ("segments", [10**30] * 4, "segments must be from 0 to 255, not 1000"),
        ("delta", torch.empty(2, device="meta"), "delta must be a dense tensor"),
    ],
)
def test_an_explanation_refuses_what_a_view_could_not_show(field, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        dataclasses.replace(explanation(2, 2, 4), **{field: value})


def test_parts_that_share_memory_are_saved(tmp_path):
    one = explanation(2, 2, 4)
    row = torch.ones(1, 4, dtype=torch.long)
    shared = dataclasses.replace(one, attention=one.attributions, delta=one.error, inputs={"a": row, "b": row})
    again = Explanation.load(shared.save(tmp_path / "x"))
    assert torch.equal(again.attention, one.attributions)
    assert again.inputs is not None
    assert torch.equal(again.inputs["b"], row)
    scores = torch.ones(2, 2, dtype=torch.float64)
    importance = HeadImportance(scores, scores, 3, "taylor", {"normalize": True}, ["a"], ["0" * 16], "m")
    assert torch.equal(HeadImportance.load(importance.save(tmp_path / "y")).stderr, scores)


def test_baselines_are_real():
    from toy import probabilities, sentences, tiny_bert

    from captum_attattr import attention_layers

    model = tiny_bert()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    with pytest.raises(TypeError, match=r"attention_baselines\[0\] must hold real numbers, not torch.complex64"):
        lattr.attribute(sentences(), target=1, attention_baselines=[torch.zeros(1, 1, 1, 1, dtype=torch.cfloat)] * 3)


def test_threads_may_import_at_once():
    source = """
import threading, captum_attattr
names = ["explain", "LayerAttAttr", "head_importance", "plot_tree", "attack", "Archive"]
barrier, problems = threading.Barrier(len(names)), []
def use(name):
    barrier.wait()
    try:
        getattr(captum_attattr, name)
    except Exception as error:
        problems.append(error)
threads = [threading.Thread(target=use, args=(name,)) for name in names]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert not problems, problems
assert captum_attattr.tasks.task("mnli") and captum_attattr.tables.read_table
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
