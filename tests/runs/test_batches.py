"""Runs over a data set: interrupted, torn, of another run, shared among processes; always the same numbers."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import tiny_bert, tiny_tokenizer
from transformers import BertForSequenceClassification

from captum_attattr import (
    ConvergenceWarning,
    HeadImportance,
    ResultFileError,
    effectiveness_analysis,
    files,
    head_importance,
    mask_heads,
    pruning_curve,
)
from captum_attattr.runs import batches as runs
from captum_attattr.runs import journal
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.digests import model_digest, text_digests
from captum_attattr.runs.journal import Done
from captum_attattr.runs.processes import Processes

BATCHES = [[4, 0], [2], [1, 3]]
ABOUT = {"method": "square", "size": 2}


def square(places: list[int]) -> Tensor:
    return torch.tensor([[place**2, place / 3] for place in places], dtype=torch.double)


def run(path: Path | None = None, work: Any = square, about: Any = ABOUT) -> Tensor:
    return run_batches(BATCHES, work, about, resume=path, progress=False)


def test_values_come_in_the_order_of_the_examples():
    assert torch.equal(run(), square([0, 1, 2, 3, 4]))


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_interrupted_run_does_the_rest_and_ends_the_same(tmp_path, broken):
    path, done = tmp_path / "run.jsonl", []

    def breaks(places: list[int]) -> Tensor:
        if places == BATCHES[broken]:
            raise KeyboardInterrupt
        done.append(places)
        return square(places)

    with pytest.raises(KeyboardInterrupt):
        run(path, breaks)
    assert done == BATCHES[:broken]

    def rest(places: list[int]) -> Tensor:
        assert places not in done
        return square(places)

    assert torch.equal(run(path, rest), run())
    assert torch.equal(run(path, lambda _: pytest.fail("all is done")), run())


@pytest.mark.parametrize("end", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_torn_last_line_is_named_and_done_again_and_nothing_else_is(tmp_path, number, end):
    path = tmp_path / "run.jsonl"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    whole = lines[number - 1].rstrip(b"\n")  # all that is missing may be the line's end
    path.write_bytes(b"".join(lines[: number - 1]) + whole[: max(1, int(end * len(whole)))])
    again: list[list[int]] = []

    def work(places: list[int]) -> Tensor:
        again.append(places)
        return square(places)

    with pytest.warns(UserWarning, match=rf"the last line \({number}\) of .*run.jsonl' is torn"):
        assert torch.equal(run(path, work), run())
    assert again == BATCHES[max(0, number - 2) :]
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [json.loads(line) for line in lines]
    assert path.read_bytes() == b"".join(lines)


def test_line_torn_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "run.jsonl"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:9] + b"\n", lines[3]]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run.jsonl' is damaged at line 3"):
        run(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n', "is no file of a run"),
        (b'{"captum_attattr run": 1, "method": "cube", "size": 2}\n', "method 'cube' there, 'square' now"),
        (b'{"captum_attattr run": 9, "method": "square", "size": 2}\n', "captum_attattr run 9 there, 1 now"),
    ],
)
def test_file_of_another_run_is_refused_and_kept(tmp_path, content, message):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run(path, lambda _: pytest.fail("nothing is to be done"))
    assert path.read_bytes() == content


def test_batch_that_the_run_does_not_have_is_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    run(path)
    with path.open("ab") as file:
        file.write(b'{"batch": 7, "values": []}\n')
    with pytest.raises(ValueError, match=r"is damaged at line 5: no batch of this run: .*; remove that line and start"):
        run(path)


def test_place_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to write there would wait for a reader
    for path in (tmp_path, tmp_path / "nowhere" / "run.jsonl", tmp_path / "pipe"):
        with pytest.raises(ValueError, match="resume must be a file in a directory that exists"):
            run(path)


def test_digest_tells_models_apart():
    model = tiny_bert()
    before = model_digest(model)
    assert before == model_digest(tiny_bert())
    with torch.no_grad():
        model.classifier.bias[1] += 1e-6
    assert model_digest(model) != before
    assert model_digest(nn.Sequential(tiny_bert())) != before


@pytest.mark.parametrize(
    "packed", [(torch.ones(2), None), {"scale": torch.ones(2)}, "text"], ids=["tuple", "dict", "text"]
)
def test_digest_takes_what_modules_keep_beside_tensors(packed):
    """As quantized maps do."""

    class Packed(nn.Linear):
        def get_extra_state(self) -> Any:
            return self.packed

    model = Packed(2, 2)
    model.packed = packed
    before = model_digest(model)
    assert model_digest(model) == before
    changed = {tuple: (torch.full((2,), 2.0), None), dict: {"scale": torch.full((2,), 2.0)}, str: "other"}
    model.packed = changed[type(packed)]
    assert model_digest(model) != before


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions.*deprecated")
def test_digest_of_quantized_tensors_tells_them_apart():
    def module(scale: float) -> nn.Module:
        kept = nn.Module()
        kept.register_buffer("weight", torch.quantize_per_tensor(torch.arange(3.0), scale, 0, torch.qint8))
        return kept

    assert model_digest(module(0.5)) == model_digest(module(0.5)) != model_digest(module(0.3))


def test_digests_tell_texts_and_pairs_apart():
    one, two, three = text_digests(["a b", ("a", "b"), "a b "])
    assert len({one, two, three}) == 3


# ---------------------------------------------------------------------------------- notes beside the values


@pytest.mark.parametrize("broken", [0, 1, 2, None])
def test_notes_of_finished_batches_are_kept_in_the_order_of_the_batches(tmp_path, broken):
    path = tmp_path / "run.jsonl"

    def noting(places: list[int]) -> Tensor:
        if broken is not None and places == BATCHES[broken] and first:
            raise KeyboardInterrupt
        notes.extend(f"about {place}" for place in places if place != 2)
        return square(places)

    first, notes = True, list[str]()
    with suppress(KeyboardInterrupt):
        run_batches(BATCHES, noting, ABOUT, resume=path, progress=False, notes=notes)
    first, notes = False, []
    run_batches(BATCHES, noting, ABOUT, resume=path, progress=False, notes=notes)
    assert notes == ["about 4", "about 0", "about 1", "about 3"]


def test_file_without_notes_is_continued(tmp_path):
    """As it was written before there were any, and as it is where there is nothing to note."""
    path = tmp_path / "run.jsonl"
    run(path)
    assert "notes" not in path.read_text()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert torch.equal(run(path), run())


# ------------------------------------------------------------------------------------- two runs on one file


def test_file_that_another_run_writes_to_is_refused_until_that_one_ends(tmp_path):
    path = tmp_path / "run.jsonl"

    def meddle(places: list[int]) -> Tensor:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"run.jsonl' is in use: another run that has not ended writes to it"):
            run(path, lambda _: pytest.fail("nothing is to be done"))
        assert path.read_bytes() == before
        return square(places)

    assert torch.equal(run(path, meddle), run())
    assert torch.equal(run(path), run())


def test_run_in_another_process_holds_its_file_and_a_killed_one_does_not(tmp_path):
    path = tmp_path / "scores.jsonl"
    process = subprocess.Popen(
        [sys.executable, *script(tmp_path, wait=0.5), str(path), str(tmp_path / "out")],
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_lines(path, 2, process)
        with pytest.raises(ValueError, match="is in use"):
            importance(resume=path)
    finally:
        process.kill()
        process.wait()
    torch.testing.assert_close(importance(resume=path).scores, importance().scores, rtol=0, atol=0)


def test_run_that_ends_before_its_first_batch_leaves_no_file(tmp_path):
    path, own = tmp_path / "run.jsonl", tmp_path / "my.jsonl"
    own.touch()

    def breaks(places: list[int]) -> Tensor:
        raise KeyboardInterrupt

    for each in (path, own):
        with pytest.raises(KeyboardInterrupt):
            run(each, breaks)
    assert list(tmp_path.iterdir()) == [own]


def test_file_that_goes_away_while_it_is_written_to_is_begun_again(tmp_path):
    path = tmp_path / "run.jsonl"

    def removes(places: list[int]) -> Tensor:
        path.unlink()
        return square(places)

    run(path, removes)
    assert [json.loads(line).get("batch") for line in path.read_text().splitlines()] == [None, 2]


def test_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def without(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(files.fcntl, "flock", without)
    assert torch.equal(run(tmp_path / "run.jsonl"), run())
    monkeypatch.setattr(files, "fcntl", None)
    assert torch.equal(run(tmp_path / "other.jsonl"), run())


def test_only_the_files_of_processes_are_read_beside_the_run(tmp_path):
    path = tmp_path / "run[1].jsonl"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    path.with_name("run[1].jsonl.rank1").write_bytes(b"".join([lines[0], *lines[2:]]))
    for other in ("run[1].jsonl.rank1.bak", "run[1].jsonl.ranking", "run1.jsonl.rank2"):
        path.with_name(other).write_bytes(b"notes")
    assert torch.equal(run(path, lambda _: pytest.fail("all is done")), run())


@pytest.mark.parametrize("path", [3, b"run.jsonl", False, ["run.jsonl"]])
def test_what_is_no_path_is_named(path):
    with pytest.raises(
        TypeError, match=re.escape(f"resume must be a string or a path, not {type(path).__name__}: {path!r}")
    ):
        run(path)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc, where nobody can write")
def test_file_that_cannot_be_written_is_named_before_any_work():
    with pytest.raises(ValueError, match=r"resume file '/proc/run.jsonl' cannot be written: "):
        run(Path("/proc/run.jsonl"), lambda _: pytest.fail("nothing is to be done"))


# ------------------------------------------------------------------------------- head importance, resumed

TEXTS = [" ".join("abcdefghij"[: 1 + i % 10]) + (" good" if i % 3 else " bad") for i in range(30)]
GOLD = [i % 3 for i in range(30)]


def importance(**options: Any) -> HeadImportance:
    return head_importance(
        tiny_bert(seed=1), tiny_tokenizer(), TEXTS, GOLD, progress=False, **{"batch_size": 2} | options
    )


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"method": "attention"}, "method 'attattr' there, 'attention' now"),
        ({"target": "predicted"}, "options"),
        ({"batch_size": 3}, "batch_size 2 there, 3 now"),
    ],
)
def test_importance_of_another_method_does_not_continue(tmp_path, changes, difference):
    path = tmp_path / "scores.jsonl"
    importance(resume=path)
    with pytest.raises(ValueError, match=f"belongs to another run and is not continued.*{difference}"):
        importance(resume=path, **changes)


def test_one_file_serves_every_reduction_of_the_maps(tmp_path, monkeypatch):
    path = tmp_path / "scores.jsonl"
    expected = importance(reduce="sum", absolute=True)
    importance(resume=path)
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("all is done"))
    found = importance(resume=path, reduce="sum", absolute=True)
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("what", ["model", "data", "labels"])
def test_importance_of_another_model_or_data_does_not_continue(tmp_path, what):
    path = tmp_path / "scores.jsonl"
    options: dict[str, Any] = {"method": "taylor", "progress": False, "resume": path}
    head_importance(tiny_bert(seed=1), tiny_tokenizer(), TEXTS, GOLD, **options)
    model = tiny_bert(seed=2 if what == "model" else 1)
    texts = [*TEXTS[1:], "z"] if what == "data" else TEXTS
    labels = [*GOLD[1:], 0] if what == "labels" else GOLD
    with pytest.raises(ValueError, match="model" if what == "model" else "data"):
        head_importance(model, tiny_tokenizer(), texts, labels, **options)


def test_curve_of_another_importance_does_not_continue(tmp_path):
    path = tmp_path / "curve.jsonl"
    model, options = tiny_bert(seed=1), {"steps": 3, "resume": path, "progress": False}
    one, other = (importance(method="random", seed=seed) for seed in (0, 1))
    first = pruning_curve(model, tiny_tokenizer(), TEXTS, GOLD, one, **options)
    assert pruning_curve(model, tiny_tokenizer(), TEXTS, GOLD, one, **options) == first
    with pytest.raises(ValueError, match="another run"):
        pruning_curve(model, tiny_tokenizer(), TEXTS, GOLD, other, **options)


@pytest.mark.parametrize("what", ["cut", "masked", "configured", "one head"])
def test_importance_under_other_conditions_does_not_continue(tmp_path, what):
    path, model = tmp_path / "scores.jsonl", tiny_bert(seed=1)
    options: dict[str, Any] = {"method": "taylor", "progress": False, "resume": path}
    head_importance(model, tiny_tokenizer(), TEXTS, GOLD, **options)
    if what == "configured":
        model.config.problem_type = "multi_label_classification"
    if what == "one head":
        with torch.no_grad():
            model.bert.encoder.layer[0].attention.output.dense.weight[:, 8:16] = 0
    masked = mask_heads(model, {0: [1]}) if what == "masked" else nullcontext()
    with masked, pytest.raises(ValueError, match="another run"):
        head_importance(model, tiny_tokenizer(), TEXTS, GOLD, truncate=4 if what == "cut" else False, **options)


@pytest.mark.parametrize("content", [b"my notes", b'{"a": 1}', b"[1, 2]\n", b"one\ntwo\n", b"\x93\x00"])
def test_file_of_somebody_else_is_kept(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no file of a run"):
        run(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b'{"batch": "0", "values": []}', b'{"batch": 0, "values": null}', b'{"batch": 0}'])
def test_line_of_another_form_is_named(tmp_path, line):
    path = tmp_path / "run.jsonl"
    run(path)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"is damaged at line 5: no batch of this run: .*; remove that line and start"):
        run(path)


@pytest.mark.parametrize("analysis", [head_importance, effectiveness_analysis])
def test_maps_that_did_not_converge_are_told_again_by_the_run_that_goes_on(tmp_path, monkeypatch, analysis):
    path, model = tmp_path / "scores.jsonl", tiny_bert(seed=1)
    options: dict[str, Any] = {"tolerance": 1e-9, "max_nodes": 5, "batch_size": 8, "progress": False}
    given = (model, tiny_tokenizer(), TEXTS[:20], GOLD[:20])
    with pytest.warns(ConvergenceWarning) as whole:
        analysis(*given, **options)
    append = journal.Journal.append

    def breaks(*args: Any) -> None:
        append(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "append", breaks)
        with pytest.raises(KeyboardInterrupt):
            analysis(*given, resume=path, **options)
    assert path.read_bytes().count(b"\n") == 2  # of three batches one is done
    with pytest.warns(ConvergenceWarning) as resumed:
        analysis(*given, resume=path, **options)
    with pytest.warns(ConvergenceWarning) as read:
        analysis(*given, resume=path, **options)
    messages = [[str(warning.message) for warning in caught] for caught in (whole, resumed, read)]
    assert messages[0] == messages[1] == messages[2]
    assert len(messages[0]) == 1


SCRIPT = """
import sys, time
import torch, torch.distributed
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from captum_attattr.heads import scoring as head_methods
from runs import test_batches as test_runs
if {processes} > 1:
    torch.distributed.init_process_group("gloo")
path, out = sys.argv[1:3]
slow = head_methods.attattr_scores
if {wait}:
    method = head_methods.METHODS["attattr"]
    def waiting(batch, options):
        time.sleep({wait})
        return slow(batch, options)
    head_methods.METHODS["attattr"] = head_methods.Method(waiting, method.options)
found = test_runs.importance(resume=path or None, **{options})
from captum_attattr.runs.processes import is_main_process
if is_main_process():
    found.save(out)
"""


def script(tmp_path: Path, wait: float = 0, processes: int = 1, **options: Any) -> list[str]:
    file = tmp_path / "script.py"
    given = {"tests": str(Path(__file__).parents[1]), "wait": wait, "processes": processes, "options": options}
    file.write_text(SCRIPT.format(**given))
    return [str(file)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def wait_for_lines(path: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_run_started_again_gives_the_same_bits(tmp_path):
    path, out = tmp_path / "scores.jsonl", tmp_path / "importance.safetensors"
    command = [sys.executable, *script(tmp_path, wait=0.05), str(path), str(out)]
    for lines in (3, 8):
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        wait_for_lines(path, lines, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    assert 8 <= path.read_bytes().count(b"\n") < 16
    done = importance(resume=path)
    torch.testing.assert_close(done.scores, importance().scores, rtol=0, atol=0)
    torch.testing.assert_close(done.stderr, importance().stderr, rtol=0, atol=0)


def test_two_processes_give_what_one_gives_and_one_finishes_what_two_began(tmp_path):
    path, out = tmp_path / "scores.jsonl", tmp_path / "importance.safetensors"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, *script(tmp_path, processes=2), str(path), str(out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(HeadImportance.load(out).scores, importance().scores, rtol=0, atol=1e-6)
    parts = [path, path.with_name(path.name + ".rank1")]
    counts = [part.read_bytes().count(b"\n") - 1 for part in parts]
    assert sum(counts) == 15
    assert min(counts) > 0
    # The first process's file loses half: the other's batches are still used.
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    torch.testing.assert_close(importance(resume=path).scores, importance().scores, rtol=0, atol=1e-6)
    assert path.read_bytes().count(b"\n") - 1 == counts[0]


def test_two_processes_warn_once_of_all_maps_and_refuse_a_file_in_use_together(tmp_path):
    path, out = tmp_path / "scores.jsonl", tmp_path / "importance.safetensors"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    unconverged = {"tolerance": 1e-9, "max_nodes": 5}
    command = [*torchrun, *script(tmp_path, processes=2, **unconverged), str(path), str(out)]
    for _ in range(2):  # the second time all is done already
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        with pytest.warns(ConvergenceWarning) as alone:
            importance(**unconverged)
        assert done.stderr.count("ConvergenceWarning") == 1
        assert str(alone[0].message).split(":")[0] in done.stderr  # how many there are

    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "scores.jsonl' is in use" in done.stderr


def processes_of(rank: int, world: int, gathered: Any = None) -> Processes:
    """Processes as this one would see them in a group of `world`."""
    processes = Processes()
    processes.rank, processes.world = rank, world
    if gathered is not None:
        processes.gathered = gathered
    return processes


def test_processes_that_do_not_share_a_disk_do_each_batch_once():
    done = {0: Done([1], []), 2: Done([3], ["note"])}

    def gathered(mine: Any) -> list[Any]:
        theirs: Any = None if mine is None else [1] if isinstance(mine, list) else {1: Done([2], [])}
        return [mine, theirs]

    assert sorted(runs._agreed(done, None, processes_of(0, 2, gathered))) == [0, 1, 2]


def test_process_raises_what_another_one_has_met():
    processes = processes_of(1, 2, lambda mine: ["'run.jsonl' is damaged", mine])
    with pytest.raises(ValueError, match=r"process 0: 'run\.jsonl' is damaged"):
        runs._agreed({}, None, processes)
    with pytest.raises(KeyError):
        runs._agreed({}, KeyError("its own"), processes)


def test_processes_get_shares_of_equal_cost():
    costs = [9.0, 7.0, 6.0, 5.0, 4.0, 1.0]

    def share(todo: list[int], rank: int, world: int) -> list[int]:
        return processes_of(rank, world).share(todo, lambda number: costs[number])

    todo = list(range(6))
    shares = [share(todo, rank, 2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == todo
    assert [sum(costs[number] for number in each) for each in shares] == [15, 17]  # of 32
    assert all(each == sorted(each) for each in shares)
    assert share(todo, 0, 1) == todo
    assert [share([3], rank, 3) for rank in range(3)] == [[3], [], []]


@pytest.mark.parametrize(
    "value",
    ['"a"', "null", '{"a": 1}', '[1, "2"]', "[[1], [2, 3]]", "1" + "0" * 400],
    ids=str,
)
def test_values_that_are_no_numbers_are_named(tmp_path, value):
    path = tmp_path / "run.jsonl"
    run(path)
    with path.open("a") as file:
        file.write(f'{{"batch": 1, "values": [{value}]}}\n')
    before = path.read_bytes()
    with pytest.raises(ResultFileError, match=r"run.jsonl' is damaged at line 5: batch 1 holds no array of numb"):
        run(path)
    assert path.read_bytes() == before


def _with_another_digit(line: str) -> str:
    entry = json.loads(line)
    entry["values"][0][0] += 1
    return json.dumps(entry)


@pytest.mark.parametrize(
    "damage",
    [
        _with_another_digit,
        lambda line: line.replace('"batch": 1', '"batch": 2'),
        lambda line: line.replace('"values"', '"notes": ["a"], "values"'),
        lambda line: line.replace('"crc32": "', '"crc32": "0'),
    ],
)
@pytest.mark.parametrize("number", [3, 4])
def test_line_that_is_json_but_not_as_it_was_written_is_named_with_a_remedy(tmp_path, damage, number):
    path, batches = tmp_path / "run.jsonl", [[0], [1], [2]]
    expected = run_batches(batches, square, ABOUT, resume=path, progress=False)
    kept = path.read_text().splitlines()
    damaged = damage(kept.pop(2))
    lines = [*kept[: number - 1], damaged, *kept[number - 1 :]]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ResultFileError, match=rf"run.jsonl' is damaged at line {number}: .*; remove that line"):
        run_batches(batches, square, ABOUT, resume=path, progress=False)
    path.write_text("\n".join(kept) + "\n")
    assert torch.equal(run_batches(batches, square, ABOUT, resume=path, progress=False), expected)


@pytest.mark.parametrize("value", [1, 2**63, 10**30, [1], [1, 2, 3], [[1, 2]], json.loads("[" * 90 + "1" + "]" * 90)])
def test_values_of_another_shape_than_those_of_other_batches_are_named(tmp_path, value):
    path = tmp_path / "run.jsonl"
    run(path)
    with path.open("a") as file:
        file.write(json.dumps({"batch": 1, "values": [value]}) + "\n")
    with pytest.raises(ResultFileError, match=r"run.jsonl' is damaged: its examples have values of the shapes \["):
        run(path)


def test_full_disk_is_told_with_the_path_and_the_run_resumed(tmp_path):
    """A limit on the size of files stands for the disk's end: the system refuses to write beyond it."""
    path, before = tmp_path / "run.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"done is kept, 0 of 3 batches: start again to go on\): '.*run\.jsonl'"):
            run(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.warns(UserWarning, match="is torn"):
        assert torch.equal(run(path), run(None))


def test_header_nested_deeper_than_python_calls_is_of_another_run(tmp_path):
    path = tmp_path / "run.jsonl"
    depth = 900
    path.write_text('{"captum_attattr run": 1, "method": ' + '{"a":' * depth + "1" + "}" * depth + "}\n")
    with pytest.raises(ValueError, match=r"is no file of a run|belongs to another run"):
        run(path)


def test_batch_with_too_few_values_is_named(tmp_path):
    path = tmp_path / "values.jsonl"
    run(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["values"].pop()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    number, size = lines[1]["batch"], len(lines[1]["values"])
    with pytest.raises(
        ResultFileError, match=rf"batch {number} holds the values of {size} examples, not of {size + 1}"
    ):
        run(path)
