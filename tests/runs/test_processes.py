"""Processes at one task: what one of them meets reaches all; real ones, on gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captum_attattr.runs.processes import Processes, is_main_process

SCRIPT = """
import datetime, json, sys
from pathlib import Path
import torch, torch.distributed as distributed
torch.set_num_threads(1)
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.processes import Processes

class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.held = lambda: None

class Returning(Exception):  # it is pickled, and does not come back: its argument is not the one it was made with
    def __init__(self, one, other):
        super().__init__(one + other)

ERRORS = [
    ValueError("a value"),
    OSError(28, "no room", "a/path"),
    RuntimeError("out of memory"),
    KeyError("a key"),
    MemoryError(),
    AssertionError("no"),
    Unpicklable("with a lambda"),
    Returning("two", " arguments"),
]

distributed.init_process_group("gloo")
rank = distributed.get_rank()
out = {}

def raised(action):
    try:
        action()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None

def act(error):
    assert rank == 0, "only the first process acts"
    if isinstance(error, Exception):
        raise error
    return error

with Processes.together() as processes:
    out["alone"] = processes.first_alone(lambda: act({"todo": [1, 2]}))
    out["errors"] = [raised(lambda: processes.first_alone(lambda: act(error))) for error in ERRORS]
    out["gathered"] = processes.gathered({"rank": rank})
    out["together"] = [
        raised(lambda: processes.raise_together(ERRORS[i] if rank == bearer else None))
        for i, bearer in ((0, 1), (1, 0), (2, 1))
    ]
    out["nothing"] = raised(lambda: processes.raise_together(None))
    out["share"] = processes.share([5, 3, 4], float)

# run_batches waits on a group of its own, for as long as another process may take.
timeouts, groups = [], []
new_group, all_gather_object = distributed.new_group, distributed.all_gather_object
def spying(*args, **options):
    timeouts.append(options["timeout"])
    groups.append(new_group(*args, **options))
    return groups[-1]
def gathering(*args, **options):
    assert options["group"] is groups[-1]
    return all_gather_object(*args, **options)
distributed.new_group, distributed.all_gather_object = spying, gathering
values = run_batches([[0], [1], [2]], lambda batch: torch.tensor([[float(i)] for i in batch]), {}, progress=False)
out["values"], out["days"] = values.tolist(), [timeout.days for timeout in timeouts]
Path(sys.argv[1], f"rank{rank}.json").write_text(json.dumps(out))
groups.clear()  # a group that outlives the process's other objects may abort it
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has seen."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / "script.py"), str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(Path(folder, f"rank{rank}.json").read_text()) for rank in range(2)]


def test_what_the_first_process_returns_all_return(outcomes):
    assert [outcome["alone"] for outcome in outcomes] == [{"todo": [1, 2]}] * 2


REACHED = [
    ["ValueError", "a value"],
    ["OSError", "[Errno 28] no room: 'a/path'"],
    ["RuntimeError", "out of memory"],
    ["KeyError", "'a key'"],
    ["MemoryError", ""],
    ["AssertionError", "no"],
    ["Unpicklable", "with a lambda"],
    ["Returning", "two arguments"],
]


@pytest.mark.parametrize("case", range(len(REACHED)))
def test_every_error_of_the_first_process_reaches_all(outcomes, case):
    kind, text = REACHED[case]
    assert outcomes[0]["errors"][case] == [kind, text]
    sent = [kind, text] if kind not in ("Unpicklable", "Returning") else ["RuntimeError", f"{kind}: {text}"]
    assert outcomes[1]["errors"][case] == sent


def test_what_each_brings_comes_to_all_by_rank(outcomes):
    assert [outcome["gathered"] for outcome in outcomes] == [[{"rank": 0}, {"rank": 1}]] * 2


def test_problem_of_one_process_is_raised_in_all(outcomes):
    assert outcomes[0]["together"] == [
        ["ValueError", "process 1: a value"],
        ["OSError", "[Errno 28] no room: 'a/path'"],
        ["ValueError", "process 1: out of memory"],
    ]
    assert outcomes[1]["together"] == [
        ["ValueError", "a value"],
        ["ValueError", "process 0: [Errno 28] no room: 'a/path'"],
        ["RuntimeError", "out of memory"],
    ]
    assert [outcome["nothing"] for outcome in outcomes] == [None, None]


def test_tasks_are_shared(outcomes):
    assert [outcome["share"] for outcome in outcomes] == [[5], [3, 4]]


def test_batches_are_done_on_a_group_that_waits_for_a_year(outcomes):
    for outcome in outcomes:
        assert outcome["values"] == [[0.0], [1.0], [2.0]]
        assert outcome["days"] == [365]


def test_one_process_alone_needs_no_group():
    assert is_main_process()
    with Processes.together() as processes:
        assert (processes.rank, processes.world) == (0, 1)
        assert processes.first_alone(lambda: 5) == 5
        assert processes.gathered("mine") == ["mine"]
        assert processes.share([2, 1], float) == [2, 1]
        processes.raise_together(None)

        class OwnError(Exception):
            held = staticmethod(lambda: None)

        def fails() -> None:
            raise OwnError

        with pytest.raises(OwnError):  # as it is, whether or not it could be sent
            processes.first_alone(fails)
