"""Files of the scripts are there whole or not at all, and can be read by whoever the umask lets read them."""

from __future__ import annotations

import io
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from common.atomic_files import staged, write_bytes, write_json, write_text
from safetensors.torch import save_file
from toy import tiny_bert
from transformers import PreTrainedModel

SIZE = 300_000


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond a few bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_tensors(path: Path) -> None:
    with staged(path.parent) as folder:
        save_file({"weight": torch.zeros(SIZE)}, folder / path.name)


def write_model(path: Path, model: PreTrainedModel) -> None:
    with staged(path.parent) as folder:
        model.save_pretrained(folder)


WRITERS = {
    "bytes": lambda path: write_bytes(path, bytes(SIZE)),
    "view": lambda path: write_bytes(path, io.BytesIO(bytes(SIZE)).getbuffer()),
    "text": lambda path: write_text(path, "0" * SIZE),
    "json": lambda path: write_json(path, ["0" * SIZE]),
    "safetensors": write_tensors,
}


def old_file(folder: Path) -> Path:
    path = folder / "result"
    path.write_text("old")
    return path


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_leaves_the_old_file_and_is_told_with_the_path(kind, tmp_path):
    path = old_file(tmp_path)
    with full_disk(), pytest.raises(OSError, match=r"(?i)file too large") as caught:
        WRITERS[kind](path)
    assert str(tmp_path) in str(caught.value)
    assert ".partial" not in str(caught.value)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("result", "old")]


def test_model_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    model = tiny_bert()
    with full_disk(), pytest.raises(OSError, match=r"(?i)file too large") as caught:
        write_model(tmp_path / "model", model)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), OSError("no"), OSError(2, "no", "elsewhere")])
def test_error_in_the_block_comes_through_and_leaves_the_old_file(error, tmp_path):
    path = old_file(tmp_path)

    def write_half() -> None:
        with staged(tmp_path) as folder:
            (folder / path.name).write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert caught.value is error
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("result", "old")]


def test_folder_in_the_files_place_is_named(tmp_path):
    (tmp_path / "result").mkdir()
    with pytest.raises(OSError, match="irectory") as caught:
        write_text(tmp_path / "result", "new")
    assert caught.value.filename == str(tmp_path / "result")
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("kind", WRITERS)
def test_permissions_are_those_of_any_new_file(kind, umask, tmp_path):
    before = os.umask(umask)
    try:
        WRITERS[kind](tmp_path / "new" / "result")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new/result").stat().st_mode) == 0o666 & ~umask
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_text_is_utf_8_with_plain_line_ends(tmp_path):
    write_text(tmp_path / "result", "ä\n\u2028b\n")
    assert (tmp_path / "result").read_bytes() == "ä\n\u2028b\n".encode()
