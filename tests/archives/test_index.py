"""An archive's index is hostile input: whatever is wrong in it is one error that has the path and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captum_attattr import Archive, ResultFileError
from captum_attattr.archives.index import Shard, read_index, run_digest, write_index

FORM = {"layers": 3, "heads": 2, "dtype": "float32", "attention": True, "inputs": True}
ABOUT: dict[str, Any] = {"examples": 5, "options": {"n_steps": 3}, "form": FORM}
SHARDS = [Shard("one.safetensors", 100, "0" * 64, [[4, 1], [0]]), Shard("two.safetensors", 80, "f" * 64, [[2, 3]])]
UNFINISHED = [Shard(shard.file, shard.size, None, shard.batches) for shard in SHARDS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_index(tmp_path / "index.json", True, ABOUT, {0: "no", 12: "yes"}, SHARDS)
    return tmp_path / "index.json"


def test_index_comes_back_as_it_was_written(path):
    index = read_index(path)
    assert index is not None
    assert (index.finished, index.about, index.labels, index.shards) == (True, ABOUT, {0: "no", 12: "yes"}, SHARDS)
    assert index.form.as_json() == FORM
    assert (index.form.value, index.form.total) == (False, False)
    assert index.run == run_digest(ABOUT)
    assert index.positions.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_index_of_a_run_that_has_not_ended_needs_no_digests(path):
    write_index(path, False, ABOUT, {}, UNFINISHED)
    index = read_index(path)
    assert index is not None
    assert not index.finished
    assert index.shards == UNFINISHED
    assert read_index(path.with_name("none.json")) is None


def test_index_of_version_0_1_says_that_inputs_are_not_stored(path):
    form = {name: value for name, value in FORM.items() if name != "inputs"}
    write_index(path, True, {**ABOUT, "form": form}, {0: "no"}, SHARDS)
    index = read_index(path)
    assert index is not None
    assert index.form.inputs is False
    assert index.form.as_json() == form


def test_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    for read in (lambda: read_index(tmp_path / "file/index.json"), lambda: Archive(tmp_path / "file")):
        with pytest.raises(NotADirectoryError, match=f"{tmp_path}/file' is no folder"):
            read()


def changed(*keys: Any, value: Any) -> Callable[[Any], None]:
    """What puts a value at some keys of the index."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def without(*keys: Any) -> Callable[[Any], None]:
    """What takes an entry out of the index."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


FILES = [
    "../one.safetensors",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:one",
    "C:\\one",
    "..",
    ".",
    "",
    "a\x00b",
    "a\n",
    "\ud800",
    "a" * 300,
    5,
    None,
    ["one.safetensors"],
    True,
]
DAMAGED: list[tuple[Callable[[Any], None], str]] = [
    *((changed("shards", 0, "file", value=file), r"shards\[0\].file must be a bare file name, not ") for file in FILES),
    *((without(name), f"it lacks {name}") for name in ("finished", "about", "labels", "shards")),
    *((changed("finished", value=value), "finished must be true or false") for value in (1, "true", None)),
    *((changed("about", value=value), "about must be an object") for value in (None, [], "x", 5)),
    *((changed("labels", value=value), "labels must be an object") for value in (None, [], "x")),
    (changed("labels", value={}), "labels is empty"),
    *((changed("labels", value={key: "x"}), "labels must name targets") for key in ("a", "-1", "1.0", "", "١")),
    *((changed("labels", value={"1": value}), "labels must be strings") for value in (None, 5, ["x"])),
    (changed("labels", value={"1" * 5000: "x"}), "integer string conversion"),
    *((changed("shards", value=value), "shards must be a list") for value in (None, {}, "x")),
    *((changed("shards", 1, value=value), r"shards\[1\] must be an object") for value in (None, [], 5)),
    *((without("shards", 1, name), rf"shards\[1\] lacks or adds {name}") for name in ("file", "bytes", "sha256")),
    (changed("shards", 1, "more", value=5), r"shards\[1\] lacks or adds more"),
    (changed("shards", 1, "file", value="one.safetensors"), "two shards have one file"),
    *(
        (changed("shards", 0, "bytes", value=value), r"shards\[0\].bytes=.* must be an int of 1 or more")
        for value in (-1, 0, 1.5, "100", None, True, float("nan"), float("inf"))
    ),
    *(
        (changed("shards", 1, "sha256", value=value), r"shards\[1\].sha256 must be 64 hexadecimal digits")
        for value in ("f" * 63, "F" * 64, "g" * 64, "f" * 64 + "\n", 5, None)
    ),
    *(
        (changed("shards", 0, "batches", value=value), r"shards\[0\].batches must be a list")
        for value in (None, {"0": [4]}, "x", 5)
    ),
    *(
        (changed("shards", 0, "batches", 0, value=value), r"shards\[0\].batches\[0\] must be a list")
        for value in (None, 4, "41", {"4": 1})
    ),
    *(
        (changed("shards", 0, "batches", 0, value=[4, value]), r"batches\[0\] must be integers, but \[1\] is")
        for value in (1.0, "1", None, True, [1])
    ),
    (changed("shards", 0, "batches", 0, value=[4, -1]), r"batches\[0\] must be 0 or more"),
    *(
        (changed("shards", 0, "batches", 0, value=value), "each of 5 examples once, but one is missing, or there twice")
        for value in ([4], [], [4, 4], [4, 1, 1], [4, 5], [4, 10**30])
    ),
    *(
        (changed("about", "examples", value=value), "about.examples=.* must be an int of 1 or more")
        for value in (0, -5, 5.0, "5", None, True)
    ),
    (changed("about", "examples", value=6), "each of 6 examples once"),
    (changed("about", "examples", value=10**30), "each of 10+ examples once"),
    *((changed("about", "form", value=value), "about.form must be an object") for value in (None, [], "x")),
    *((without("about", "form", name), f"about.form lacks or adds {name}") for name in FORM if name != "inputs"),
    (changed("about", "form", "more", value=1), "about.form lacks or adds more"),
    *((changed("about", "form", "layers", value=value), "layers=.* must be an int") for value in (0, -1, 3.0, "3")),
    *((changed("about", "form", "heads", value=value), "heads=.* must be an int") for value in (0, None, True)),
    *((changed("about", "form", "dtype", value=value), "dtype=.* is unknown") for value in ("int8", None, [])),
    *((changed("about", "form", name, value=1), f"{name} must be True or False") for name in ("attention", "inputs")),
]


@pytest.mark.parametrize("case", range(len(DAMAGED)))
def test_damaged_index_is_refused(path, case):
    change, message = DAMAGED[case]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    expected = (
        rf"'{path}' is damaged: (?s:.*){message}(?s:.*); delete it, and start the run that made the archive again"
    )
    with pytest.raises(ResultFileError, match=expected) as caught:
        Archive(path.parent)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"captum_attattr archive": 1, "about": ' + b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"1" * 5_000,
    ],
    ids=["empty", "cut", "no text", "deep and cut", "deep list", "deep object", "long number"],
)
def test_what_is_no_json_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=f"'{path}' is no JSON: .*; if explain_dataset wrote it, delete it"):
        Archive(path.parent)


@pytest.mark.parametrize("content", ["{}", "[]", "5", "null", '"captum_attattr archive"', '{"weight_map": {}}'])
def test_json_of_something_else_is_refused(path, content):
    path.write_text(content)
    with pytest.raises(ResultFileError, match=f"'{path}' is no index of an archive; choose another folder"):
        Archive(path.parent)


@pytest.mark.parametrize("version", [0, 2, 1.0, "1", None, True, []])
def test_other_versions_are_refused(path, version):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"captum_attattr archive": version}))
    with pytest.raises(ResultFileError, match=f"'{path}' was written by another version .*: read it with that version"):
        Archive(path.parent)
