"""Pictures as users give them: PIL images, arrays, tensors and files, checked and read as RGB."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from captum_attattr import checks

WANTED = (
    "a PIL image, an array (height, width, 3) of uint8, a tensor (3, height, width) of uint8 or of floats from 0 to 1, "
    "or the path of a file"
)


class Image(NamedTuple):
    """One picture."""

    name: str
    """The file's name, or the picture's size."""
    pixels: Any
    """A PIL image in RGB."""


def read_images(images: Any) -> list[Image]:
    """Return pictures as PIL images in RGB, turned as their files say; one picture alone is a list of it.

    Raises:
        ImportError: Pillow is not installed.
        TypeError, ValueError: there is none, or one is nothing of `WANTED`; the message has its index and its value.
        FileNotFoundError: a path of no file.
    """
    given = [images] if _single(images) else images
    none = isinstance(given, np.ndarray | Tensor | Mapping | bytes) or hasattr(given, "read")  # a file that is open
    if none or not isinstance(given, Iterable):
        shape = f" of shape {tuple(given.shape)}; use list(images)" if hasattr(given, "shape") else f": {given!r:.60}"
        raise TypeError(f"images must be a picture or a list of pictures, not {type(given).__name__}{shape}")
    read = [_read(i, image) for i, image in enumerate(given)]
    if not read:
        raise ValueError("images is empty: give at least one")
    return read


def check_text(index: int, text: Any) -> None:
    """Check a text that goes with a picture.

    Raises:
        TypeError, ValueError: it is none, or empty.
    """
    name = f"text of images[{index}]"
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, not {type(text).__name__}: {text!r:.60}")
    if not text.strip():
        raise ValueError(f"{name} is empty: {text!r:.60}")
    checks.characters(name, text)


def _single(images: Any) -> bool:
    """Return whether something is one picture."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim < 4
    return isinstance(images, (str, os.PathLike, _pillow().Image))


def _read(index: int, given: Any) -> Image:
    """Return one picture of a list."""
    where = f"images[{index}]"
    pillow = _pillow()
    if isinstance(given, str | os.PathLike):
        return _opened(where, given)
    if isinstance(given, pillow.Image):
        picture = _of_bytes(where, given)
    elif isinstance(given, np.ndarray):
        picture = pillow.fromarray(_array(where, given))
    elif isinstance(given, Tensor):
        picture = pillow.fromarray(_of_tensor(where, given))
    else:
        raise TypeError(f"{where} must be {WANTED}, not {type(given).__name__}: {given!r:.60}")
    if 0 in picture.size:
        raise ValueError(f"{where} has no pixels: it is {picture.size[0]} x {picture.size[1]}")
    return Image(f"picture of {picture.size[0]} x {picture.size[1]} pixels", picture.convert("RGB"))


def _array(where: str, array: Any) -> Any:
    """Return an array (H, W, 3) of uint8."""
    shape, hint = array.shape, ""
    if array.ndim == 3 and shape[0] == 3 != shape[-1]:
        hint = "; use image.transpose(1, 2, 0)"
    elif array.ndim == 2:
        hint = "; of a grey one use np.stack([image] * 3, -1)"
    elif array.dtype != np.uint8 and array.dtype.kind == "f":
        hint = "; of numbers from 0 to 1 use (255 * image).round().astype(np.uint8)"
    if array.ndim != 3 or shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(f"{where} must be {WANTED}, not an array {shape} of {array.dtype}{hint}")
    return array


def _of_tensor(where: str, tensor: Tensor) -> Any:
    """Return a tensor (3, H, W) as an array (H, W, 3) of uint8."""
    shape = tuple(tensor.shape)
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.dim() != 3 or shape[0] != 3 or not (kind == "uint8" or tensor.is_floating_point()):
        hint = "; use image.permute(2, 0, 1)" if tensor.dim() == 3 and shape[-1] == 3 else ""
        raise ValueError(f"{where} must be {WANTED}, not a tensor {shape} of {kind}{hint}")
    values = tensor.detach().cpu()
    if tensor.is_floating_point():
        values = values.float()
        if values.numel() and not bool(((values >= 0) & (values <= 1)).all()):
            low, high = float(values.min()), float(values.max())
            raise ValueError(
                f"{where} has values from {low:.3g} to {high:.3g}: floats must be from 0 to 1, a picture before the "
                "processor normalises it"
            )
        values = (values * 255).round().byte()
    return values.permute(1, 2, 0).contiguous().numpy()


def _of_bytes(where: str, picture: Any) -> Any:
    """Return a PIL image whose pixels are bytes.

    Raises:
        ValueError: they are larger numbers or fractions, all of which Pillow makes white or black in RGB.
    """
    if picture.mode[0] in "IF":
        raise ValueError(
            f"{where} has pixels of the mode {picture.mode!r}, from {picture.getextrema()[0]:.3g} to "
            f"{picture.getextrema()[1]:.3g}, which Pillow cuts off at 255: bring them to 0 to 255 as uint8 first"
        )
    return picture


def _opened(where: str, path: str | os.PathLike[str]) -> Image:
    """Return the picture of a file."""
    from PIL import ImageOps, UnidentifiedImageError

    if "://" in str(path):
        raise ValueError(f"{where}={str(path)!r:.100} is an address: nothing is downloaded; give a file")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{where}: no file {str(path)!r}")
    try:
        with _pillow().open(path) as picture:
            turned = ImageOps.exif_transpose(_of_bytes(where, picture))
            return Image(Path(path).name, turned.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, _pillow().DecompressionBombError) as error:
        raise ValueError(f"{where}: {str(path)!r} cannot be read as a picture: {error}") from error


def _pillow() -> Any:
    """Return Pillow's module of images.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise ImportError("pictures need Pillow: python -m pip install pillow") from error
    return PIL.Image
