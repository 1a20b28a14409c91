"""Pictures of figures for papers."""

from __future__ import annotations

import os
from pathlib import Path

import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, finite, instance
from captum_attattr.files import checked_path, replacing

_FORMATS = ("pdf", "svg", "png", "jpeg", "jpg", "webp")


@checked_arguments
def write_image(figure: go.Figure, path: str | os.PathLike[str], *, scale: float = 2) -> Path:
    """Write a figure as a picture for a paper: what is seen at first, in light colours, without its menus.

    In PDF and SVG texts and lines are vectors, and fonts are embedded in PDF. An old file stays as it is until the new
    one is there whole. It needs the package kaleido, which `pip install "captum_attattr[images]"` brings, and a Chrome
    or Chromium on this machine; the page of `write_html` saves pictures without either.

    Args:
        figure: a figure of this package, or another one of plotly.
        path: the file; its name ends in .pdf, .svg, .png, .jpg, .jpeg or .webp. Its directory must exist.
        scale: for PNG, JPEG and WebP, the pixels of the picture for each pixel of the figure.

    Returns:
        The path.

    Raises:
        TypeError: `figure` is no figure, `path` no path, or `scale` no number.
        ValueError: another ending, a scale of 0 or less, or a directory that does not exist.
        RuntimeError: kaleido or a browser is missing; the message says which, and what to do.

    Example:
        >>> import plotly.graph_objects
        >>> write_image(plotly.graph_objects.Figure(), "tree.gif")
        Traceback (most recent call last):
            ...
        ValueError: path='tree.gif' must end in .pdf, .svg, .png, .jpeg, .jpg, .webp
    """
    instance("figure", figure, go.Figure, "a plotly Figure")
    if (scale := finite("scale", scale)) <= 0:
        raise ValueError(f"scale must be above 0, not {scale}")
    path = checked_path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in _FORMATS:
        raise ValueError(f"path={str(path)!r:.100} must end in {', '.join(f'.{each}' for each in _FORMATS)}")
    bare = go.Figure(figure)
    bare.layout.updatemenus = bare.layout.sliders = []  # update_layout would leave them
    with replacing(path) as temporary:
        temporary.write_bytes(_rendered(bare, kind, scale))
    return path


def _rendered(figure: go.Figure, kind: str, scale: float) -> bytes:
    """Return the bytes of a picture.

    Raises:
        RuntimeError: what renders it is missing.
    """
    instead = "or save the picture with the buttons of the page of write_html, which needs neither"
    try:
        import kaleido  # noqa: F401
    except ImportError as error:
        raise RuntimeError(f"write_image needs kaleido: pip install 'captum_attattr[images]'; {instead}") from error
    try:
        image: bytes = figure.to_image(format=kind, scale=1 if kind in ("pdf", "svg") else scale)
    except Exception as error:
        if "chrome" not in f"{type(error).__name__} {error}".lower():
            raise
        raise RuntimeError(
            "write_image needs a Chrome or Chromium, which kaleido did not find or start: install one, or run "
            f"`plotly_get_chrome` (BROWSER_PATH names one that is elsewhere); {instead}"
        ) from error
    return image
