"""Files that are there whole or not at all: results written and read, and files that one process holds."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from captum_attattr import checks
from captum_attattr.exceptions import ResultFileError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")

_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
"""Names of files with weights that `save_pretrained` writes."""

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such lock: two runs that write to one file are not noticed there
    fcntl = None


def checked_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Return what was given as a path; `name` is the argument's, for the message.

    Raises:
        TypeError: it is none.
        ValueError: it is empty, which would be the working directory, or has a NUL byte.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be a string or a path, not {type(path).__name__}: {path!r}")
    if path == "":
        raise ValueError(f"{name} is empty; the working directory is '.'")
    if "\0" in os.fsdecode(path):
        raise ValueError(f"{name} must not have a NUL byte, which no file's name can: {os.fsdecode(path)!r:.100}")
    return Path(path)


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that exists.

    Raises:
        TypeError: `path` is no path.
        FileNotFoundError: there is no such file.
    """
    if not (file := checked_path(path)).is_file():
        raise FileNotFoundError(
            f"no file {str(path)!r}" + (", but something else of that name" if file.exists() else "")
        )
    return Path(path)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends without an error.

    Whoever reads `path` meanwhile sees the old file or the new one, whole; after an error only the old one is left. Of
    a symbolic link, what it leads to is written.

    Args:
        path: the file to be; its directory must exist.

    Yields:
        The temporary path to write to.

    Raises:
        TypeError: `path` is no path.
        ValueError: `path` is a directory, a device or a pipe, its directory does not exist, or nothing can be written
            there.
    """
    path = checked_path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"path must be a file, but {path} is a {'directory' if path.is_dir() else 'device or a pipe'}")
    file = path.resolve() if path.is_symlink() else path  # what a link leads to is written, and the link stays
    if not file.parent.is_dir():
        lacks = "is a file: choose" if file.parent.exists() else "does not exist: make it first, or choose"
        raise ValueError(f"the directory {file.parent} {lacks} another path")
    # In the same directory, since a rename is atomic within one file system only.
    temporary = _temporary(file, file.parent)
    try:
        try:
            temporary.touch()
        except OSError as error:
            raise ValueError(f"{str(path)!r} cannot be written: {error.strerror}") from error
        with _holding(temporary):
            mode = temporary.stat().st_mode  # some writers make their files private; the user's umask decides here
            yield temporary
            temporary.chmod(mode)
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(file)
            flush_folder(file.parent)
    except OSError as error:  # a full disk
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # a file system that became read-only: the block's error says it
            temporary.unlink(missing_ok=True)


def _temporary(path: Path, folder: Path) -> Path:
    """Return a new name in a folder for what becomes `path`; what killed writers of `path` left there is removed."""
    mark = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    for left in folder.glob(f".{mark}.*.tmp"):
        with _holding(left) as held, suppress(OSError):
            if held:  # nobody writes there any more
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return folder / f".{mark}.{uuid.uuid4().hex[:16]}.tmp"


@contextmanager
def _holding(path: Path) -> Iterator[bool]:
    """Hold a file or folder as long as the block lasts, if that can be; yields whether it is held."""
    descriptor, held = None, False
    try:
        with suppress(OSError):  # Windows opens no folders
            descriptor = os.open(path, os.O_RDONLY)
            held = bool(hold(descriptor))
        yield held
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def saving(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Name a folder in errors from another library's writing of files into it.

    Raises:
        OSError: the files could not be written, as on a full disk; the message has the folder.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:  # which names neither file nor number
        raise OSError(f"{str(folder)!r} cannot be written: {error}") from error
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error


def flush_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, where the system can do that: a rename is not lost by a power cut."""
    with suppress(OSError):  # Windows opens no folders, and some network's file systems flush none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing_files(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside or in `path`; its files go into the folder `path` when the block ends without an error.

    A folder that is missing appears whole. In one that exists the files are renamed into place one after the other,
    once all are written, and weights of a model that are not among them go; other files stay.

    Args:
        path: the folder to be.

    Yields:
        The temporary folder.

    Raises:
        TypeError: `path` is no path.
        ValueError: `path` is a file, or a folder that cannot be made.
        OSError: a file cannot be written; the message has the path.
    """
    folder = checked_path(path)
    if folder.is_file():
        raise ValueError(f"path must be a folder, but {str(path)!r} is a file")
    made = not folder.exists()
    temporary = _temporary(folder, folder.parent if made else folder)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"the folder {str(path)!r} cannot be made: {error.strerror}") from error
    try:
        with _holding(temporary):
            yield temporary
            for file in temporary.iterdir():  # as the user's umask has it, and not for the owner alone
                file.chmod(temporary.stat().st_mode & (0o777 if file.is_dir() else 0o666))
            if made:
                temporary.rename(folder)
                return
            new = {file.name for file in temporary.iterdir()}
            for file in sorted(temporary.iterdir(), key=lambda file: file.name == "config.json"):  # the config last
                file.replace(folder / file.name)
            for file in folder.iterdir():
                if file.name not in new and _WEIGHTS.fullmatch(file.name):
                    file.unlink()
    except OSError as error:
        if error.errno is None or str(path) in str(error):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write JSON, whole or not at all.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as `replacing`.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        # UTF-8 has no half of a surrogate pair: it becomes the escape that JSON reads.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def write_tensors(path: str | os.PathLike[str], name: str, version: int, tensors: Any, content: Any) -> Path:
    """Write a safetensors file, whole or not at all, with everything that is no tensor as JSON in its header.

    Args:
        path: the file.
        name: of the header's entry, which says what kind of file this is.
        version: of the format.
        tensors: by name.
        content: what else there is, by name.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as `replacing`.
        OSError: the file cannot be written to the end; the message has the path.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    header = {name: json.dumps({"version": version, **content})}  # ASCII, since UTF-8 has no half of a surrogate pair
    with replacing(path) as temporary:
        try:
            save_file(_apart(tensors), temporary, metadata=header)
        except SafetensorError as error:  # a full disk, without its number
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error
    return Path(path)


def _apart(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors of which no two share memory, which safetensors refuses."""
    apart: dict[str, Any] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return apart


@contextmanager
def reading(path: str | os.PathLike[str], what: str, writer: str) -> Iterator[Path]:
    """Read a result file: whatever its content makes wrong becomes one error, which has the path and what to do.

    Args:
        path: the file.
        what: it should hold: "head importance".
        writer: what writes such files: "HeadImportance.save".

    Yields:
        The path.

    Raises:
        TypeError, FileNotFoundError: as `existing_file`.
        ResultFileError: the block raised an error about a value; the message has its reason.
    """
    from safetensors import SafetensorError

    file = existing_file(path)
    try:
        yield file
    except ResultFileError:
        raise
    except RecursionError:
        reason, cause = "it is nested too deeply", None
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        reason, cause = f"it lacks {error}" if isinstance(error, KeyError) else str(error), error
    else:
        return
    raise ResultFileError(
        f"{str(path)!r} holds no {what}: {reason}; give a file that {writer} wrote, and make it again if it was damaged"
    ) from cause


def read_json(file: Path) -> Any:
    """Return what a JSON file holds; for use inside `reading`."""
    return json.loads(file.read_text(encoding="utf-8"))


def read_tensors(file: Path, name: str, newest: int) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the version, the content and the tensors that `write_tensors` wrote; for use inside `reading`.

    Args:
        file: the path.
        name: of the header's entry.
        newest: the newest version of the format that is known.

    Raises:
        KeyError, ValueError: it is no such file.
        ResultFileError: a newer version wrote it.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        content = json.loads((opened.metadata() or {})[name])
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
    version: Any = content.pop("version", None) if isinstance(content, dict) else None
    check_version(file, version, newest)
    return version, content, tensors


def check_version(file: Path, version: Any, newest: int) -> None:
    """Check that the version of a file's format is a known one.

    Raises:
        ResultFileError: it is another.
    """
    if type(version) is not int or not 1 <= version <= newest:
        raise ResultFileError(
            f"{str(file)!r} was written by another version of captum_attattr (format {version!r}; this one reads 1 to "
            f"{newest}): read it with that version, or make it again"
        )


def read_format(file: Path, name: str) -> Mapping[str, Any]:
    """Return what a JSON file with "format": `name` and "version": 1 holds; for use inside `reading`.

    Raises:
        KeyError, ValueError: it is no such file.
        ResultFileError: a newer version wrote it.
    """
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != name:
        raise ValueError(f"its format is not {name!r}")
    check_version(file, content.get("version"), 1)
    return content


def from_entry(kind: type[Kind], entry: Any, where: str) -> Kind:
    """Return an object of a dataclass, made of a JSON object that has its fields; for use inside `reading`.

    Args:
        kind: the dataclass, which checks itself.
        entry: the object.
        where: it stands in the file, for messages.

    Raises:
        TypeError, ValueError: it is no object, lacks or adds fields, or has a wrong value.
    """
    try:
        entry = checks.instance("it", entry, dict, "an object")
        checks.names_match(entry, [field.name for field in fields(kind)])
        return kind(**entry)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error


def hold(file: IO[bytes] | int) -> bool | None:
    """Hold an open file, or a folder's descriptor, for this process, until it is closed or the process ends.

    Returns:
        Whether it is held: False where another process holds it, None on a file system without locks.

    Raises:
        OSError: the lock failed for another reason.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return None
    return True
