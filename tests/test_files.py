"""Files of results: whole or not at all, read or refused with path, reason and remedy, held by one."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import tiny_bert

from captum_attattr import ResultFileError, save_pruned
from captum_attattr.files import (
    existing_file,
    hold,
    read_format,
    read_json,
    read_tensors,
    reading,
    replacing,
    write_json,
    write_tensors,
)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond a few bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "json": lambda path: write_json(path, ["0" * 10_000]),
    "tensors": lambda path: write_tensors(path, "kind", 1, {"weight": torch.zeros(10_000)}, {}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_is_told_with_the_path(writer, tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="result"):
        WRITERS[writer](path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result"]


def test_a_full_disk_is_told_with_the_folder_by_save_pruned(tmp_path):
    with full_disk(), pytest.raises(OSError, match=f"{tmp_path}/pruned"):
        save_pruned(tiny_bert(), tmp_path / "pruned")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_user_s_umask_decides_who_reads_results(mask, tmp_path):
    before = os.umask(mask)
    try:
        save_pruned(tiny_bert(), tmp_path / "model")
        write_tensors(tmp_path / "tensors", "kind", 1, {"weight": torch.zeros(3)}, {})
    finally:
        os.umask(before)
    for file in (*(tmp_path / "model").iterdir(), tmp_path / "tensors"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask, file
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~mask


def test_the_error_of_a_file_system_that_became_read_only_is_not_covered_by_the_clean_up(tmp_path, monkeypatch):
    def read_only(self: Path, **_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    def broken() -> None:
        with replacing(tmp_path / "result"):
            monkeypatch.setattr(Path, "unlink", read_only)
            raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"):
        broken()
    monkeypatch.undo()
    monkeypatch.setattr(Path, "touch", lambda self: read_only(self))
    with pytest.raises(ValueError, match="result' cannot be written: Read-only file system"):
        write_json(tmp_path / "result", [])


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_the_old_file(error, tmp_path):
    path = tmp_path / "result"
    path.write_text("old")

    def stops() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half a")
            raise error("stopped")

    with pytest.raises(error):
        stops()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result"]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, TypeError, "path must be a string or a path, not NoneType"),
        (b"result", TypeError, "path must be a string or a path, not bytes"),
        (".", ValueError, "path must be a file, but"),
        ("nowhere/result", ValueError, "the directory .*nowhere does not exist: make it first, or choose another path"),
        (f"{__file__}/result", ValueError, r"the directory .*test_files\.py is a file: choose another path"),
    ],
)
def test_where_nothing_can_be_written(path, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        write_json(path, 1)
    assert os.listdir(tmp_path) == []


def test_what_is_no_file_stays_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match=rf"path must be a file, but .*{name} is a device or a pipe"):
            write_json(tmp_path / name, 1)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_written(there, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far/result")
    if there:
        (tmp_path / "far/result").write_text("old")
    write_json(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far/result").read_text() == '"new"\n'
    assert os.listdir(tmp_path / "far") == ["result"]


@pytest.mark.parametrize("content", [{"a": [1, 2.5, None, "ü", "\ud800"]}, [], "text"])
def test_what_was_written_is_read(content, tmp_path):
    with reading(write_json(tmp_path / "x", content), "thing", "write_json") as file:
        assert read_json(file) == content
    path = write_tensors(tmp_path / "y", "kind", 3, {"t": torch.arange(6).reshape(2, 3).T}, {"content": content})
    with reading(path, "thing", "write_tensors") as file:
        version, rest, tensors = read_tensors(file, "kind", 3)
    assert (version, rest) == (3, {"content": content})
    assert torch.equal(tensors["t"], torch.arange(6).reshape(2, 3).T)


def fail(error: BaseException) -> Any:
    def read(_: Path) -> None:
        raise error

    return read


DAMAGES: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "holds no thing: Expecting property name"),
    "brackets": ("[" * 100_000 + "]" * 100_000, "holds no thing: it is nested too deeply"),
    "no text": (b"\xff\xfe", "holds no thing: .*utf-8"),
    "another kind": (json.dumps({"format": "other", "version": 1}), "holds no thing: its format is not 'kind'"),
    "no object": ("[1]", "holds no thing: its format is not 'kind'"),
    "newer": (json.dumps({"format": "kind", "version": 2}), "written by another version of captum_attattr"),
    "version of another type": (json.dumps({"format": "kind", "version": True}), "another version"),
    "no version": (json.dumps({"format": "kind"}), "another version"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_with_path_and_reason(damage, tmp_path):
    content, message = DAMAGES[damage]
    path = tmp_path / "thing.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with (
        pytest.raises(ResultFileError, match=rf"'{path}' .*{message}|{message}") as caught,
        reading(path, "thing", "write_json") as file,
    ):
        read_format(file, "kind")
    assert str(path) in str(caught.value)
    assert "make it again" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("tokens"), "it lacks 'tokens'"),
        (IndexError("list index"), "list index"),
        (TypeError("tokens must be a list"), "tokens must be a list"),
        (AttributeError("no keys"), "no keys"),
        (OverflowError("too large"), "too large"),
        (RecursionError(), "it is nested too deeply"),
    ],
)
def test_whatever_the_content_makes_wrong_is_one_error(error, message, tmp_path):
    path = write_json(tmp_path / "x", {})
    expected = rf"'{path}' holds no thing: {message}; give a file that Thing.save wrote, and make it again"
    with pytest.raises(ResultFileError, match=expected), reading(path, "thing", "Thing.save") as file:
        fail(error)(file)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(5, "read error")])
def test_what_the_content_does_not_make_wrong_passes(error, tmp_path):
    path = write_json(tmp_path / "x", {})
    with pytest.raises(type(error)), reading(path, "thing", "Thing.save") as file:
        fail(error)(file)


def test_missing_files(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no file '{path}'"):
            existing_file(path)


def test_a_file_is_held_by_one_process_until_it_ends(tmp_path):
    path = tmp_path / "run"
    tried = f"from captum_attattr.files import hold; print(hold(open({str(path)!r}, 'ab')))"

    def other() -> str:
        return subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, check=True).stdout.strip()

    with open(path, "ab") as file:
        assert hold(file)
        assert other() == "False"
    assert other() == "True"


WRITING = {"file": "replacing", "folder": "replacing_files"}


@pytest.mark.parametrize(("kind", "there"), [("file", False), ("file", True), ("folder", True)])
def test_what_a_killed_writer_left_goes_with_the_next_one(kind, there, tmp_path):
    """Not what is written at that time, nor what belongs to another file."""
    path = tmp_path / ("result" if kind == "file" else "model")
    if there and kind == "folder":
        path.mkdir()
    elif there:
        path.write_text("old")
    content = "temporary.write_text('new')" if kind == "file" else "(temporary / 'config.json').write_text('new')"
    code = f"""
import os, signal, sys
from captum_attattr.files import {WRITING[kind]} as writing
with writing(sys.argv[1]) as temporary:
    {content}
    print(temporary, flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""

    def writer(how: str, path: Path) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", code, str(path), how], text=True, **pipes)

    def left(how: str, path: Path) -> Path:
        process = writer(how, path)
        return Path(process.communicate()[0].strip())

    killed, other = left("kill", path), left("kill", path.with_name("other"))
    assert killed.exists()
    assert other.exists()
    slow = writer("wait", path)
    assert slow.stdout is not None
    waiting = Path(slow.stdout.readline().strip())
    assert not killed.exists()
    left("go on", path)
    assert waiting.exists()
    slow.communicate("")
    assert slow.returncode == 0
    found = path if kind == "file" else path / "config.json"
    assert found.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == sorted([path, other])
