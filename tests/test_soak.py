"""Runs killed, refused by the disk and damaged at random, for minutes: nothing is lost, and nothing is silently wrong.

Every resumable function is run in a process of its own, again and again, until it ends; between the attempts bytes of
its files are changed. In the end its result must be that of a run that nothing happened to, bit for bit, and every
attempt must have ended by the kill, or with an error that names a file. Not in the default run:

    SOAK_MINUTES=30 python -m pytest -m soak -n 0 -s tests/test_soak.py

A few rounds of it are in the default run.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import re
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from head_examples import GOLD, TEXTS
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import (
    Trigger,
    attack,
    compare_pruning,
    effectiveness_analysis,
    explain_dataset,
    find_patterns,
    head_importance,
    pruning_curve,
)

MODEL, TOKENIZER = tiny_bert(seed=1), tiny_tokenizer()
QUICK: dict[str, Any] = {"n_steps": 2, "batch_size": 1, "progress": False}
CURVE: dict[str, Any] = {"batch_size": 1, "progress": False}
RANDOM = head_importance(MODEL, TOKENIZER, TEXTS[:1], GOLD[:1], "random", progress=False)
TRIGGER = Trigger(("good", "bad"), (0.0, 1.0), (0, 0), 0.5, 0, 0, 0, 0)


def archive(folder: Path) -> Any:
    explain_dataset(MODEL, TOKENIZER, TEXTS * 2, folder, shard_bytes=6_000, **QUICK)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def saved(result: Any, folder: Path) -> bytes:
    path: Path = result.save(f"{folder}.json")
    return path.read_bytes()


JOBS: dict[str, Callable[[Path], Any]] = {
    "explain_dataset": archive,
    "head_importance": lambda folder: head_importance(
        MODEL, TOKENIZER, TEXTS, GOLD, resume=folder / "run", **QUICK
    ).scores.tolist(),
    "effectiveness_analysis": lambda folder: saved(
        effectiveness_analysis(MODEL, TOKENIZER, TEXTS, GOLD, resume=folder / "run", **QUICK), folder
    ),
    "pruning_curve": lambda folder: (
        pruning_curve(MODEL, TOKENIZER, TEXTS, GOLD, RANDOM, resume=folder / "run", **CURVE).metric
    ),
    "compare_pruning": lambda folder: [
        curve.metric
        for curve in compare_pruning(
            MODEL, TOKENIZER, TEXTS, GOLD, [RANDOM], 3, structural=False, random_seeds=1, resume=folder / "run", **CURVE
        ).curves
    ],
    "find_patterns": lambda folder: find_patterns(MODEL, TOKENIZER, TEXTS, GOLD, resume=folder / "run", **QUICK),
    "attack": lambda folder: saved(
        attack(MODEL, TOKENIZER, TEXTS, GOLD, [TRIGGER], None, resume=folder / "run", **CURVE), folder
    ),
}
REMEDY = re.compile(
    r"'(?P<path>[^']+)' is damaged at line (?P<line>\d+)|'(?P<file>[^']+)' (is damaged|is no file|belongs|holds)"
)


def attempt(
    job: Callable[[Path], Any], folder: Path, choose: random.Random, mishap: str | None = None
) -> tuple[str, Any]:
    """Run a job in a process of its own, under a mishap; return the mishap, and the result or the error's text."""
    mishap = mishap or choose.choice(("none", "kill", "kill", "full disk", "failed write", "failed flush"))
    limit, write = choose.randrange(200, 20_000), choose.randrange(1, 30)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # a run that hangs is killed, and fails the test
        os.close(reading)
        status = 1
        try:
            if mishap == "full disk":  # the system refuses to write files beyond that size
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            elif mishap != "none" and mishap != "kill":
                name, before = ("fsync", os.fsync) if mishap == "failed flush" else ("replace", os.replace)
                calls = iter(range(1, 10_000))

                def failing(*args: Any, **options: Any) -> Any:
                    if next(calls) == write:
                        path = [] if name == "fsync" else [str(args[0])]  # the system names no path of an open file
                        raise OSError(errno.EIO, os.strerror(errno.EIO), *path)
                    return before(*args, **options)

                setattr(os, name, failing)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = ("done", job(folder))
        except (OSError, ValueError) as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        except BaseException:
            answer = ("broken", traceback.format_exc())
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
            status = 0
        os._exit(status)
    os.close(writing)
    if mishap == "kill":
        time.sleep(choose.random() * 0.8)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    try:
        return mishap, pickle.loads(content)
    except (EOFError, pickle.UnpicklingError):
        return mishap, ("killed", None)


def damage(folder: Path, choose: random.Random) -> str:
    """Change bytes of one file of an unfinished run, as a power cut or a bad disk does; return how."""
    files = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size and path.name != "index.json"]
    if not files or choose.random() < 0.5:
        return "nothing"
    path = choose.choice(sorted(files))
    data = bytearray(path.read_bytes())
    kind = choose.choice(("bit", "zeros at the end", "cut off"))
    if kind == "bit":
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    elif kind == "zeros at the end":
        count = choose.randrange(1, len(data) + 1)
        data[-count:] = bytes(count)
    else:
        del data[choose.randrange(len(data)) :]
    path.write_bytes(data)
    return kind


def follow(message: str) -> bool:
    """Do what an error says: remove a line or a file; return whether it said anything."""
    found = REMEDY.search(message)
    if found is None:
        return False
    path = Path(found["path"] or found["file"])
    if found["line"]:
        lines = path.read_bytes().split(b"\n")
        del lines[int(found["line"]) - 1]
        path.write_bytes(b"\n".join(lines))
    else:
        path.unlink()
    return True


def soak(root: Path, seconds: float, seed: int, jobs: list[str]) -> Counter[str]:
    """Run jobs under mishaps for some seconds (each job three times at least); return what happened, counted."""
    choose, happened = random.Random(seed), Counter[str]()
    expected: dict[str, Any] = {}
    for name in jobs:
        (root / name).mkdir()
        # Not in this process: threads that a backward pass starts would make later forks unsafe.
        _, (outcome, expected[name]) = attempt(JOBS[name], root / name, choose, "none")
        assert outcome == "done", expected[name]
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end or rounds < 3 * len(jobs):
        name = jobs[rounds % len(jobs)]
        folder = root / f"{name}{rounds}"
        folder.mkdir()
        rounds += 1
        for _ in range(200):
            mishap, (outcome, answer) = attempt(JOBS[name], folder, choose)
            happened[f"{mishap}: {outcome}"] += 1
            assert outcome != "broken", (name, mishap, seed, answer)
            assert outcome != "killed" or mishap == "kill", (name, mishap, seed)
            if outcome == "done":
                break
            if outcome == "error":
                mended = follow(answer)
                happened["remedies followed"] += mended
                assert mended or str(folder) in answer, (name, mishap, seed, answer)
            happened[f"damage: {damage(folder, choose)}"] += 1
        else:
            pytest.fail(f"{name} did not end, seed {seed}")
        assert answer == expected[name], (name, seed)
        happened[f"ended: {name}"] += 1
    return happened


@pytest.mark.soak
def test_soak(tmp_path):
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    seed = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 10**6)))
    happened = soak(tmp_path, 60 * minutes, seed, list(JOBS))
    print(f"\nsoak of {minutes:g} minutes, seed {seed}", file=sys.stderr)
    for what, count in sorted(happened.items()):
        print(f"{count:7d}  {what}", file=sys.stderr)


def test_a_short_soak(tmp_path):
    jobs = ["explain_dataset", "head_importance", "attack"]
    happened = soak(tmp_path, 0, 7, jobs)
    assert sum(count for what, count in happened.items() if not what.startswith("ended")) > 2 * len(jobs)
