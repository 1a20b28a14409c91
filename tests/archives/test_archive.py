"""Data sets explained to disk: the numbers of `explain`, whatever interrupts; and read one example at a time."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import WORDS, tiny_bart, tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import (
    Archive,
    ConvergenceWarning,
    Explanation,
    ResultFileError,
    explain,
    explain_dataset,
    mask_heads,
    prune_heads,
)
from captum_attattr.archives import explain_dataset as dataset
from captum_attattr.archives import run as runs
from captum_attattr.archives.shards import ShardWriter

TEXTS: list[Any] = [" ".join(WORDS[i : i + 1 + i % 5]) for i in range(14)] + [("a b", "good film"), ("a", "bad")]
OPTIONS: dict[str, Any] = {"n_steps": 3, "batch_size": 2, "shard_bytes": 8_000, "progress": False}


def write(folder: Path, texts: Any = TEXTS, **options: Any) -> Archive:
    return explain_dataset(tiny_bert(seed=1), tiny_tokenizer(), texts, folder, **OPTIONS | options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("archive") / "whole"
    write(folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def assert_same_inputs(found: Explanation, expected: Explanation) -> None:
    assert found.inputs is not None
    assert expected.inputs is not None
    assert list(found.inputs) == list(expected.inputs)
    for name, tensor in found.inputs.items():
        assert tensor.dtype == expected.inputs[name].dtype
        assert torch.equal(tensor, expected.inputs[name])


def assert_same(found: Explanation, expected: Explanation, **tolerance: float) -> None:
    for name in ("tokens", "text", "label", "target", "prediction", "segments", "special"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.probability == pytest.approx(expected.probability, abs=1e-6)
    assert torch.equal(found.nodes, expected.nodes)
    assert found.value == found.probability
    if expected.inputs is not None:
        assert_same_inputs(found, expected)
    for name in ("attributions", "attention", "delta", "error"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, equal_nan=True, **{"rtol": 0, "atol": 1e-6} | tolerance)


# ------------------------------------------------------------------------------------- what is in the files


@pytest.mark.parametrize("n_steps", [3, None])
def test_archive_holds_what_explain_gives(tmp_path, n_steps):
    archive = write(tmp_path, n_steps=n_steps)
    expected = explain(tiny_bert(seed=1), tiny_tokenizer(), TEXTS, n_steps=n_steps, progress=False)
    assert len(archive) == len(TEXTS) == len(list(archive))
    for found, one in zip(archive, expected, strict=True):
        assert_same(found, one)


def test_targets_and_truncation_are_those_of_explain(tmp_path):
    texts, targets = [*TEXTS[:5], " ".join(WORDS[:9]), ("a b c d e", "f g h i j")], [0, 1, 2, "LABEL_0", None, 1, 2]
    archive = write(tmp_path, texts, target=targets, truncate=8)
    options: dict[str, Any] = {"target": targets, "truncate": 8, "n_steps": 3, "progress": False}
    for found, one in zip(archive, explain(tiny_bert(seed=1), tiny_tokenizer(), texts, **options), strict=True):
        assert_same(found, one)
    assert [len(found.tokens) for found in archive][-2:] == [8, 8]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_targets_are_a_list_or_an_array(tmp_path, kind):
    archive = write(tmp_path, TEXTS[:3], target=kind([1, 0, 1]))
    assert [explanation.target for explanation in archive] == [1, 0, 1]


def test_next_token_of_a_language_model_keeps_its_name(tmp_path):
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    texts = ["a b c", "good film", "a", "x y"]
    archive = explain_dataset(model, tokenizer, texts, tmp_path, **OPTIONS)
    for found, one in zip(archive, explain(model, tokenizer, texts, n_steps=3, progress=False), strict=True):
        assert_same(found, one)


@pytest.mark.parametrize("kind", ["pruned", "encoder of two", "double"])
def test_models_of_other_shapes_are_stored_as_they_are_explained(tmp_path, kind):
    model: Any = tiny_bart() if kind == "encoder of two" else tiny_bert(seed=1)
    if kind == "pruned":
        prune_heads(model, {0: [1, 2], 2: [0]})
    texts, model = TEXTS[:4], model.double() if kind == "double" else model
    archive = explain_dataset(model, tiny_tokenizer(), texts, tmp_path, **OPTIONS)
    for found, one in zip(archive, explain(model, tiny_tokenizer(), texts, n_steps=3, progress=False), strict=True):
        assert_same(found, one)


def test_half_precision_is_as_near_as_it_says(tmp_path, whole):
    half, full = write(tmp_path, dtype="float16"), Archive(whole)
    for found, expected in zip(half, full, strict=True):
        for layer in range(3):
            largest = float(expected.attributions[layer].abs().max())
            torch.testing.assert_close(
                found.attributions[layer], expected.attributions[layer], rtol=2**-11, atol=1e-11 * largest
            )
        torch.testing.assert_close(found.attention, expected.attention, rtol=2**-11, atol=3e-8)
        assert torch.equal(found.delta, expected.delta)
    sizes = [sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in (tmp_path, whole)]
    assert sizes[0] < 0.75 * sizes[1]  # what is said about texts is a good part of so small a file


def test_attention_can_be_left_out(tmp_path, whole):
    for found, expected in zip(write(tmp_path, attention=False), Archive(whole), strict=True):
        assert torch.equal(found.attributions, expected.attributions)
        assert found.attention is None


def test_shards_are_plain_safetensors_files(whole):
    tensors = load_file(whole / "attributions-00001-of-00006.safetensors")
    longest = [number for number in range(len(TEXTS)) if len(Archive(whole)[number].tokens) == 7][:2]
    assert torch.equal(tensors["0.attributions"][1], Archive(whole)[longest[1]].attributions)
    assert json.loads(bytes(tensors["0.texts"].tolist()))[1]["tokens"] == Archive(whole)[longest[1]].tokens


def test_stored_inputs_run_the_example_again(whole):
    model = tiny_bert(seed=1)
    for found in Archive(whole)[12:]:
        assert found.inputs is not None
        with torch.no_grad():
            probabilities = model(**found.inputs).logits.softmax(-1)
        assert float(probabilities[0, found.target]) == pytest.approx(found.value, abs=1e-6)


def test_text_of_any_kind_comes_back_as_it_was(tmp_path):
    texts = ['"a" \\ \u2028 <b> \x00 é 漢 🎬 a', "a\nb\tc"]
    assert [found.text for found in write(tmp_path, texts)] == texts


def test_batch_size_is_all_that_is_in_memory(tmp_path, monkeypatch):
    alive: weakref.WeakSet[Explanation] = weakref.WeakSet()
    most, explained = [0], runs.DatasetRun._explain

    def watched(self: Any, items: Any) -> list[Explanation]:
        found = explained(self, items)
        alive.update(found)
        most[0] = max(most[0], len(alive))
        return found

    monkeypatch.setattr(runs.DatasetRun, "_explain", watched)
    write(tmp_path, TEXTS * 4)
    assert most[0] <= 2 * OPTIONS["batch_size"]


# ---------------------------------------------------------------------------------------------- the reader


def test_archive_is_a_sequence(whole):
    archive = Archive(whole)
    assert archive[-1].text == TEXTS[-1]
    assert [found.text for found in archive[2:9:3]] == TEXTS[2:9:3]
    assert repr(archive) == f"Archive({str(whole)!r}): 16 examples"
    for number in (16, -17):
        with pytest.raises(IndexError, match=rf"example {number} is not in .*: it holds 0 to 15"):
            archive[number]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_integers_of_other_libraries_are_taken(whole, kind):
    archive = Archive(whole)
    assert archive[kind(3)].text == TEXTS[3]
    assert [found.text for found in archive[kind(2) : kind(4)]] == TEXTS[2:4]
    assert torch.equal(archive.layer(kind(3), kind(1)), archive.layer(3, 1))


NO_INDICES: list[Any] = ["1", True, np.True_, torch.tensor(True), 1.0, np.float32(1), None, (0, 1), [0], 1j, b"1"]


@pytest.mark.parametrize("value", NO_INDICES, ids=repr)
def test_what_is_no_index_is_named(whole, value):
    archive = Archive(whole)
    expected = re.escape(f"must be an integer, not {type(value).__name__}: {value!r:.60}")
    with pytest.raises(TypeError, match=f"the index of an example {expected}"):
        archive[value]
    with pytest.raises(TypeError, match=f"the index of an example {expected}"):
        archive.layer(value, 0)
    with pytest.raises(TypeError, match=f"^layer {expected}"):
        archive.layer(0, value)


@pytest.mark.parametrize(
    "part", [slice("a", None), slice(1.5, None), slice(None, "3"), slice(None, None, 1.0)], ids=repr
)
def test_slices_take_integers_only(whole, part):
    with pytest.raises(TypeError, match="slice indices must be integers"):
        Archive(whole)[part]
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        Archive(whole)[::0]


@pytest.mark.parametrize("folder", [5, None, b"films", ["films"], True])
def test_folder_that_is_no_path_is_named(folder):
    expected = re.escape(f"folder must be a string or a path, not {type(folder).__name__}: {folder!r}")
    with pytest.raises(TypeError, match=expected):
        Archive(folder)
    with interrupted(0), pytest.raises(TypeError, match=expected):
        write(folder)


def test_one_layer_is_read_alone(tmp_path, whole):
    for archive in (Archive(whole), write(tmp_path, dtype="float16")):
        for layer in (0, 2, -1):
            assert torch.equal(archive.layer(3, layer), archive[3].attributions[layer])
        with pytest.raises(IndexError, match="layer 3 is not there: the model has 3"):
            archive.layer(0, 3)


def test_one_example_is_read_without_the_rest(copy):
    """Every other shard, and every other batch's numbers in its own, may be gone."""
    archive = Archive(copy)
    expected = archive[0]
    shard, batch, _ = archive._index.positions[0]
    path = copy / archive._index.shards[shard].file
    for other in copy.glob("*.safetensors"):
        if other != path:
            other.unlink()
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:header])
    with path.open("r+b") as file:
        for name, entry in entries.items():
            if name != "__metadata__" and not name.startswith(f"{batch}."):
                file.seek(header + entry["data_offsets"][0])
                file.write(b"\xff" * (entry["data_offsets"][1] - entry["data_offsets"][0]))
    assert_same(Archive(copy)[0], expected, atol=0)


def test_verify_finds_one_changed_bit_and_makes_room_for_the_repair(copy, whole):
    Archive(copy).verify(progress=False)
    path = sorted(copy.glob("*.safetensors"))[3]
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(ResultFileError, match=f"missing or damaged: {path}; start the run that made .* again"):
        Archive(copy).verify(progress=False)
    assert path.read_bytes() == data
    assert Archive(copy).verify(repair=True, progress=False) == [path.name]
    assert not path.exists()
    with interrupted(99) as done:
        write(copy)
    assert files(copy) == files(whole)
    assert 0 < len(done) < 8
    assert Archive(copy).verify(progress=False) == []


def test_missing_and_damaged_shards_are_named(copy):
    archive = Archive(copy)
    path = copy / archive._index.shards[archive._index.positions[5][0]].file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ResultFileError, match=rf"'{path}' is damaged: {len(whole) - 1} bytes, .* {len(whole)}"):
        archive[5]
    path.write_bytes(b"\xff" * len(whole))
    with pytest.raises(ResultFileError, match=f"'{path}' is damaged"):
        archive[5]
    path.write_bytes(whole.replace(archive._index.run.encode(), b"0" * 16))
    with pytest.raises(ResultFileError, match=f"'{path}' belongs to another run"):
        archive[5]
    path.unlink()
    with pytest.raises(ResultFileError, match=f"'{path}' is missing"):
        archive[5]
    with pytest.raises(ResultFileError, match="is missing"):
        archive.layer(5, 0)


DAMAGED: dict[str, tuple[Callable[[str], str], str]] = {
    "junk": (lambda text: text[:99], "is no JSON: .*delete it and start the run again"),
    "other": (lambda text: '{"weight_map": {}}', "is no index of an archive; choose another folder"),
    "list": (lambda text: "[]", "is no index of an archive"),
    "version": (lambda text: text.replace('archive": 1', 'archive": 2'), "another version"),
    "lacks": (lambda text: text.replace('"about"', '"abuot"'), "is damaged: it lacks about"),
    "places": (lambda text: text.replace('"batches": [[', '"batches": [[99, ', 1), "is damaged"),
    "twice": (lambda text: text.replace('"batches": [[', '"batches": [[0, ', 1), "is damaged"),
    "label": (lambda text: text.replace('"labels": {', '"labels": {"a": "b", '), "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_index_is_an_error_that_names_it(copy, name):
    change, message = DAMAGED[name]
    index = copy / "index.json"
    index.write_text(change(index.read_text()))
    with pytest.raises(ResultFileError, match=rf"{index}.*{message}"):
        Archive(copy)


def replaced(name: str, value: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    """What puts a tensor, or what a function makes of the one that is there, into a shard."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = (value(tensors[name]) if callable(value) else value).contiguous()

    return change


def texts(change: Callable[[Any], Any]) -> Callable[[dict[str, torch.Tensor]], None]:
    """What changes the JSON of the texts, or puts bytes in its place."""

    def put(tensors: dict[str, torch.Tensor]) -> None:
        content = json.loads(bytes(tensors["0.texts"].tolist()))
        new = change(content)
        data = new if isinstance(new, bytes) else json.dumps(content if new is None else new).encode()
        tensors["0.texts"] = torch.tensor(list(data.ljust(-(-len(data) // 8) * 8)), dtype=torch.uint8)

    return put


def entry(name: str, value: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    """What puts a value into the JSON of the second text."""
    return texts(lambda content: content[1].update({name: value}))


SHAPES = [
    *(
        (replaced(f"0.{name}", change), rf"0\.{name} must be ")
        for name in ("target", "prediction", "probability", "nodes", "delta", "error", "attributions", "attention")
        for change in (torch.Tensor.half, lambda tensor: tensor[:1], lambda tensor: tensor[..., None])
    ),
    (replaced("0.attributions", lambda maps: maps[:, :2]), r"0\.attributions must be"),
    (replaced("0.attributions", lambda maps: maps[:, :, :1]), r"0\.attributions must be"),
    (replaced("0.attributions", lambda maps: maps[..., :-1]), r"0\.attributions must be"),
    (replaced("0.attributions", torch.tensor(1.0)), "index out of range"),
    (replaced("0.texts", torch.tensor(1, dtype=torch.uint8)), "index out of range"),
    (replaced("0.texts", lambda data: data.float()), r"0\.texts must be U8"),
    (replaced("0.texts", lambda data: data[:, None]), r"0\.texts must be U8"),
    *((lambda tensors, name=name: tensors.pop(f"0.{name}"), f"0.{name}") for name in ("target", "attention", "texts")),
]
VALUES = [
    (replaced("0.attributions", lambda maps: maps / 0), "attributions must be finite"),
    (replaced("0.attention", lambda maps: maps * torch.nan), "attention must be finite"),
    (replaced("0.delta", lambda delta: delta / 0), "delta must be finite"),
    (replaced("0.probability", lambda value: value / 0), "probability must be finite"),
    (replaced("0.target", lambda target: target - 9), "the index has no label of the target -"),
    (replaced("0.target", lambda target: target + 9), "the index has no label of the target 1"),
    (replaced("0.prediction", lambda prediction: prediction - 9), "prediction=-8 must be an int of 0 or more"),
    (texts(lambda _: b"no"), "Expecting value"),
    (texts(lambda _: b"\xff"), "can't decode"),
    (texts(lambda _: b"[" * 100_000), "recursion"),
    (texts(lambda content: content[:1]), "list index out of range"),
    (texts(lambda content: {"1": content[1]}), "1"),
    (texts(lambda content: [5, 5]), "not iterable"),
    (texts(lambda content: ["text", "text"]), "it lacks or adds"),
    (texts(lambda content: content[1].clear()), "it lacks or adds"),
    (texts(lambda content: content[1].pop("inputs") and None), r"it lacks or adds \['inputs'\]"),
    (entry("label", "yes"), r"it lacks or adds \['label'\]"),
    (entry("number", 0), "it does not hold example 9 where the index has it"),
    (entry("text", 5), "text must be a string or a pair"),
    (entry("text", ["a"]), "text must be a string or a pair"),
    (entry("text", ["a", 5]), "text must be strings"),
    (entry("tokens", ["a"]), "must be 1 x 1 for 1 token"),
    (entry("tokens", "abcdefg"), "tokens must be a list"),
    (entry("tokens", [5] * 7), "tokens must be strings"),
    (entry("segments", [0]), "segments must have the shape"),
    (entry("segments", [-1] * 7), "segments must be 0 or more"),
    (entry("special", [5] * 7), "special must be True or False"),
    (entry("inputs", None), "'items'"),
    (entry("inputs", [1]), "'items'"),
    (entry("inputs", {"input_ids": [1]}), r"must have the shape \(1, 7\)"),
    (entry("inputs", {"input_ids": "abcdefg"}), "too many dimensions"),
    (entry("inputs", {"input_ids": [[1]] * 7}), r"must have the shape \(1, 7\)"),
    (entry("inputs", {"input_ids": [None] * 7}), "NoneType"),
]


@pytest.mark.parametrize("case", range(len(SHAPES) + len(VALUES)))
def test_shard_of_other_tensors_is_an_error_that_names_it(copy, case):
    change, message = [*SHAPES, *VALUES][case]
    path = copy / "attributions-00001-of-00006.safetensors"
    tensors = load_file(path)
    change(tensors)
    run, before = Archive(copy)._index.run, path.stat().st_size
    save_file(tensors, path, metadata={"captum_attattr run": run})
    index = copy / "index.json"
    index.write_text(index.read_text().replace(f'"bytes": {before}', f'"bytes": {path.stat().st_size}', 1))
    expected = f"the shard '{path}' is damaged: .*{message}.*; start the run that made the archive again, which makes"
    with pytest.raises(ResultFileError, match=expected):
        Archive(copy)[9]
    if case < len(SHAPES):
        with pytest.raises(ResultFileError, match=expected):
            Archive(copy).layer(9, 0)


def test_folder_without_an_archive_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"{folder}' holds no archive"):
            Archive(folder)


# -------------------------------------------------------------------------------------------- interruptions


class StoppedError(BaseException):
    """As a KeyboardInterrupt, which would stop the tests as well."""


@contextmanager
def interrupted(after: int) -> Iterator[list[list[int]]]:
    """Explain `after` batches, then stop; gives the numbers of the examples that were explained."""
    explained, done = runs.DatasetRun._explain, []

    def stopping(self: Any, items: Any) -> list[Explanation]:
        if len(done) == after:
            raise StoppedError
        done.append([item.index for item in items])
        return explained(self, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.DatasetRun, "_explain", stopping)
        yield done


def test_run_stopped_anywhere_and_torn_anywhere_ends_byte_for_byte_the_same(tmp_path, whole):
    expected, choose = files(whole), random.Random(0)
    batches = [batch for shard in json.loads(expected["index.json"])["shards"] for batch in shard["batches"]]
    for after in range(len(batches)):
        folder = tmp_path / str(after)
        with interrupted(after) as first, pytest.raises(StoppedError):
            write(folder)
        with pytest.raises(ResultFileError, match=r"has not ended: \d+ of 6 shards are there; start it again"):
            Archive(folder)
        (part,) = folder.glob("*.part")
        counted = part.with_suffix(".sha256").exists()
        kept, torn = part.stat().st_size, choose.choice([0, 3, 900])
        with part.open("ab") as file:  # a batch that the kill cut off
            file.write(b"x" * torn)
        if after % 3 == 2:  # or, of the batches that were written, the last did not reach the disk
            os.truncate(part, max(0, kept - 5))
        if after == 0:  # cut off in its header
            os.truncate(part, 7)
        lost = pytest.warns(UserWarning, match=r"1 of \d batches in .*\.part' are damaged: they are done again")
        with interrupted(99) as second, lost if after % 3 == 2 and counted else nullcontext():
            write(folder)
        assert files(folder) == expected
        again = [batch for batch in first if batch in second]
        assert len(again) <= (after % 3 == 2)
        assert len(first) + len(second) - len(again) == len(batches)


def test_finished_run_is_not_done_again(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    with interrupted(0):
        write(copy)
    assert {path: path.stat().st_mtime_ns for path in copy.iterdir()} == before


def test_lost_shard_is_made_again_and_nothing_else(copy, whole):
    (copy / "attributions-00004-of-00006.safetensors").unlink()
    with interrupted(99) as done:
        write(copy)
    assert files(copy) == files(whole)
    assert 0 < sum(map(len, done)) < 5


@contextmanager
def version_0_1() -> Iterator[None]:
    """Begin runs as version 0.1 did, without the model's inputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_is_of_version_0_1", lambda _: True)
        yield


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_archive_of_version_0_1_is_read_and_resumed_byte_for_byte(tmp_path, dtype):
    old, begun = tmp_path / "old", tmp_path / "begun"
    with version_0_1():
        write(old, dtype=dtype)
        with interrupted(4), pytest.raises(StoppedError):
            write(begun, dtype=dtype)
    assert b"inputs" not in b"".join(files(old).values())
    write(begun, dtype=dtype)
    assert files(begun) == files(old)
    lost = sorted(old.glob("*.safetensors"))[1]
    lost.unlink()
    write(old, dtype=dtype)
    assert files(begun) == files(old)
    for found, expected in zip(Archive(old), write(tmp_path / "new", dtype=dtype), strict=True):
        assert found.inputs is None
        assert_same(found, replace(expected, inputs=None), atol=0)


SCRIPT = """
import sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from itertools import count
from pathlib import Path
import archives.test_archive as tests
explained = tests.runs.DatasetRun._explain
def slow(self, items):
    time.sleep(0.03)
    with open({log!r}, "a") as log:
        print(*(item.index for item in items), file=log)
    return explained(self, items)
tests.runs.DatasetRun._explain = slow
tests.write(Path(sys.argv[1]), tests.TEXTS * 3)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_run_killed_at_random_moments_ends_byte_for_byte_the_same(tmp_path):
    script, log, folder = tmp_path / "run.py", tmp_path / "log", tmp_path / "killed"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1]), log=str(log)))
    choose, begun = random.Random(os.getpid()), 0
    for kill in range(2):
        process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment())
        wanted = begun + choose.randint(2, 8)
        while not log.exists() or (begun := log.read_text().count("\n")) < wanted:
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.005)
        time.sleep(choose.random() * 0.06)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not json.loads((folder / "index.json").read_text())["finished"], kill
    with interrupted(99) as done:
        write(folder, TEXTS * 3)
    write(tmp_path / "whole", TEXTS * 3)
    assert files(folder) == files(tmp_path / "whole")
    batches = [*log.read_text().splitlines(), *(" ".join(map(str, batch)) for batch in done)]
    assert len(batches) <= len(set(batches)) + 2  # at most the one under way at each kill


def test_changed_texts_are_noticed(tmp_path):
    class Changing(list[Any]):
        def __getitem__(self, number: Any) -> Any:
            self.asked = getattr(self, "asked", 0) + 1
            return "a b c d" if self.asked > len(self) else super().__getitem__(number)

    with pytest.raises(ValueError, match="the texts have changed while they were explained"):
        write(tmp_path, Changing(TEXTS))


# ------------------------------------------------------------------------------------ other runs, and disks


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"n_steps": 4}, "options.n_steps 3 there, 4 now"),
        ({"batch_size": 3}, "batch_size 2 there, 3 now"),
        ({"dtype": "float16"}, "form.dtype 'float32' there, 'float16' now"),
        ({"target": 1}, "data"),
        ({"texts": [*TEXTS[1:], "z"]}, "data"),
        ({"texts": TEXTS[1:]}, "examples 16 there, 15 now"),
        ({"model": 2}, "model"),
        ({"masked": True}, "masked"),
    ],
)
@pytest.mark.parametrize("state", ["whole", "begun"])
def test_folder_of_another_run_is_refused_and_kept(tmp_path, copy, changes, difference, state):
    folder = copy
    if state == "begun":
        folder = tmp_path / "begun"
        with interrupted(2), pytest.raises(StoppedError):
            write(folder)
    before, model, options = files(folder), tiny_bert(seed=changes.get("model", 1)), dict(changes)
    options.pop("model", None)
    masked = mask_heads(model, {0: [1]}) if options.pop("masked", False) else nullcontext()
    given = {"texts": TEXTS, **OPTIONS, **options}
    with masked, pytest.raises(ValueError, match=rf"belongs to another run and is not resumed \(.*{difference}"):
        explain_dataset(model, tiny_tokenizer(), folder=folder, **given)
    assert files(folder) == before


@pytest.mark.parametrize("name", ["attributions-00002-of-00006.safetensors", "attributions-00002-of-00006.part"])
def test_shard_of_another_run_in_the_way_is_refused_and_kept(copy, name):
    shard = copy / "attributions-00002-of-00006.safetensors"
    foreign = shard.read_bytes().replace(Archive(copy)._index.run.encode(), b"0" * 16)
    shard.unlink()
    (copy / name).write_bytes(foreign)
    with pytest.raises(ResultFileError, match=f"{name}' belongs to another run"):
        write(copy)
    assert (copy / name).read_bytes() == foreign


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[:-8],
    "longer": lambda data: data + b"x",
    "a bit of a map": lambda data: data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:],
    "zeros at the end": lambda data: data[:-900] + bytes(900),
    "zeros": lambda data: bytes(len(data)),
    "zeros at the beginning": lambda data: bytes(300) + data[300:],
    "a bit of the header": lambda data: data.replace(b'"I64"', b'"I65"', 1),
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_shard_of_a_finished_run_is_made_anew_by_running_again(copy, whole, damage):
    shard = copy / "attributions-00002-of-00006.safetensors"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.warns(UserWarning, match=f"'{shard}' is damaged: what is damaged in it is made again"):
        write(copy)
    assert files(copy) == files(whole)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("kind", ["part", "safetensors"])
def test_damage_during_a_run_is_made_good_by_running_again(tmp_path, whole, kind, damage):
    """As after a power cut, where what was not flushed is lost: the bytes of a part, of a shard, or of the digests."""
    with interrupted(4), pytest.raises(StoppedError):
        write(tmp_path)
    file = sorted(tmp_path.glob(f"*.{kind}"))[0]
    file.write_bytes(damage(file.read_bytes()))
    torn = damage is DAMAGES["longer"] and kind == "part"  # cut off, as after any kill
    with nullcontext() if torn else pytest.warns(UserWarning, match="damaged: (what|they)"):
        write(tmp_path)
    assert files(tmp_path) == files(whole)
    assert Archive(tmp_path).verify(progress=False) == []


@pytest.mark.parametrize("damage", [None, *DAMAGES.values()], ids=["gone", *DAMAGES])
def test_damaged_digests_cost_work_and_nothing_else(tmp_path, whole, damage):
    with interrupted(4), pytest.raises(StoppedError):
        write(tmp_path)
    for file in tmp_path.glob("*.sha256"):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage(file.read_bytes().ljust(3000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(tmp_path)
    assert files(tmp_path) == files(whole)


@pytest.mark.parametrize("damaged", [False, True])
def test_whichever_flush_fails_the_error_names_the_file(tmp_path, whole, damaged, monkeypatch):
    """The system's error names none: all of them, one after the other, of a run that was interrupted."""
    flush, said = os.fsync, []
    for failing in range(1, 100):
        folder, calls = tmp_path / str(failing), count(1)
        with interrupted(4), pytest.raises(StoppedError):
            write(folder)
        for part in folder.glob("*.part") if damaged else ():
            part.write_bytes(part.read_bytes()[:-900] + bytes(900))

        def refused(descriptor: int, calls: Any = calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", refused)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                write(folder)
            except OSError as error:
                said.append(str(error))
                assert str(folder) in said[-1]
        done = next(calls) <= failing
        monkeypatch.undo()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(folder)
        assert files(folder) == files(whole)
        if done:
            break
    assert len(said) > 10


def test_digests_left_by_a_kill_at_the_very_end_are_removed(copy, whole):
    (copy / "attributions-00002-of-00006.sha256").write_text("0" * 64 + "\n")
    write(copy)
    assert files(copy) == files(whole)


def test_index_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "index.json").write_text('{"weight_map": {}}')
    with pytest.raises(ResultFileError, match="is no index of an archive; choose another folder"):
        write(tmp_path)
    assert files(tmp_path) == {"index.json": b'{"weight_map": {}}'}


def test_disk_without_the_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 2_000))
    with interrupted(0), pytest.raises(OSError, match=r"[\d.]+ kB are needed and 2 kB are free; float16 .*'.*new'"):
        write(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_full_disk_is_told_with_the_path_and_the_run_resumed(tmp_path, whole):
    """A limit on the size of files stands for the disk's end: the system refuses to write beyond it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, before[1]))
    try:
        with pytest.raises(
            OSError, match=r"what is done is kept, \d of \d batches of this file: start again .*-0000.*part'"
        ):
            write(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    write(tmp_path)
    assert files(tmp_path) == files(whole)


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file/inside"):
        with interrupted(0), pytest.raises(OSError, match=str(folder)):
            write(folder)
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with interrupted(0), pytest.raises(PermissionError, match=str(tmp_path)):
        write(tmp_path)


def test_two_runs_do_not_write_the_same_shard(tmp_path, monkeypatch):
    entered = ShardWriter.__enter__

    def twice(self: ShardWriter) -> ShardWriter:
        monkeypatch.setattr(ShardWriter, "__enter__", entered)
        found = entered(self)
        with pytest.raises(BlockingIOError, match=rf"another process is writing it; wait .*'{self.part}'"):
            ShardWriter(self.path, self.layout).__enter__()
        return found

    monkeypatch.setattr(ShardWriter, "__enter__", twice)
    write(tmp_path)


# ----------------------------------------------------------------------------------------- words to the user


def test_run_says_what_it_will_take(tmp_path, capsys):
    write(tmp_path, TEXTS * 2, progress=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "texts:" in line]
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    needed = float(line.split(": ")[1].split(" kB")[0]) * 1_000 - 2**16
    assert needed == pytest.approx(size, rel=0.01)
    assert line.startswith("explain 32 texts: ")
    assert re.search(r"\([\d.]+ [GT]B free\), about \d+ (s|min)$", line)
    write(tmp_path, TEXTS * 2, progress=True)
    assert "texts:" not in capsys.readouterr().err  # nothing is left to do


def test_maps_that_did_not_converge_are_counted_once_for_all(tmp_path):
    message = r"^\d+ of 48 attribution maps .* tolerance 1e-05: example \d+, layer"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        archive = write(tmp_path, n_steps=None, tolerance=1e-5, max_nodes=5)
    assert [warning.filename for warning in caught] == [__file__]  # the caller's line
    assert max(float(found.error.max()) for found in archive) > 1e-5


def test_example_that_fails_is_told_by_its_number(tmp_path):
    model = tiny_bert(seed=1)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[4 + WORDS.index("z")] = torch.nan
    with pytest.raises(ValueError, match=r"finite output \(among the examples 1\)"):
        explain_dataset(model, tiny_tokenizer(), ["a b", "a z", "b a"], tmp_path, **OPTIONS | {"batch_size": 1})


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "texts": ({"texts": 3}, "texts must be"),
    "none": ({"texts": []}, "texts is empty"),
    "empty": ({"texts": ["a", " "]}, r"texts\[1\] = ' ' is empty"),
    "long": ({"texts": [" ".join(WORDS)]}, r"texts\[0\] has 34 tokens and the model takes 24"),
    "target": ({"target": 3}, "target 3 of texts.0. is out of range"),
    "targets": ({"target": [1]}, "target lists 1 entries for 16 texts"),
    "rule": ({"method": "simpson"}, "method='simpson' is unknown"),
    "steps": ({"n_steps": 0}, "n_steps=0 is too small"),
    "batch": ({"batch_size": 0}, "batch_size=0 must be an int of 1 or more"),
    "shard": ({"shard_bytes": 1.5}, "shard_bytes=1.5 must be an int of 1 or more"),
    "dtype": ({"dtype": "bfloat16"}, "dtype='bfloat16' is unknown; use 'float32' or 'float16'"),
    "attention": ({"attention": "no"}, "attention must be True or False, not str: 'no'"),
    "bools": ({"batch_size": True}, "batch_size=True must be an int of 1 or more"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_told_before_anything_is_done(tmp_path, name):
    changes, message = MISTAKES[name]
    with interrupted(0), pytest.raises((TypeError, ValueError), match=message):
        explain_dataset(
            tiny_bert(), tiny_tokenizer(), **{"texts": TEXTS, "folder": tmp_path / "new", **OPTIONS} | changes
        )
    assert not list(tmp_path.iterdir())


def test_numbers_of_other_libraries_are_taken(copy):
    """And are those of Python: the folder is that of the run with Python's own."""
    numbers = {"n_steps": np.int64(3), "batch_size": torch.tensor(2), "shard_bytes": np.int32(8_000)}
    with interrupted(0):
        write(copy, **numbers, tolerance=np.float64(1e-3), max_nodes=np.uint16(1_000), attention=np.True_)


def test_model_is_left_as_it_was(tmp_path, unchanged):
    model = tiny_bert(seed=1).train()
    with unchanged(model):
        explain_dataset(model, tiny_tokenizer(), TEXTS[:3], tmp_path / "one", **OPTIONS)
        with interrupted(1), pytest.raises(StoppedError):
            explain_dataset(model, tiny_tokenizer(), TEXTS, tmp_path / "two", **OPTIONS)


# -------------------------------------------------------------------------------------------- many processes

SHARED = """
import os, sys
import torch, torch.distributed
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from itertools import count
from pathlib import Path
import archives.test_archive as tests
torch.distributed.init_process_group("gloo")
rank, folder = torch.distributed.get_rank(), Path(sys.argv[1])
for texts, place in ((tests.TEXTS[rank:], folder / "unlike"), (tests.TEXTS, folder / "file")):
    try:  # the second is a file: the first process finds out, and all of them are told
        tests.write(place, texts)
    except (OSError, ValueError) as error:
        (folder / f"{{place.name}}{{rank}}").write_text(str(error))
explained, mine = tests.runs.DatasetRun._explain, []
def counting(self, items):
    mine.extend(item.index for item in items)
    return explained(self, items)
tests.runs.DatasetRun._explain = counting
archive = tests.write(folder / "shared")
(folder / f"done{{rank}}").write_text(" ".join(map(str, mine)))
assert len(archive) == len(tests.TEXTS)
"""


def test_two_processes_write_what_one_writes(tmp_path, whole):
    script = tmp_path / "run.py"
    script.write_text(SHARED.format(tests=str(Path(__file__).parents[1])))
    (tmp_path / "file").write_text("mine")
    with interrupted(5), pytest.raises(StoppedError):  # begun by one process
        write(tmp_path / "shared")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([*torchrun, str(script), str(tmp_path)], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shares = [[int(number) for number in (tmp_path / f"done{rank}").read_text().split()] for rank in range(2)]
    assert min(map(len, shares)) > 2
    assert not set(shares[0]) & set(shares[1])
    assert files(tmp_path / "shared") == files(whole)
    for rank in range(2):
        assert "have not all the same model, texts and options" in (tmp_path / f"unlike{rank}").read_text()
        assert str(tmp_path / "file") in (tmp_path / f"file{rank}").read_text()
