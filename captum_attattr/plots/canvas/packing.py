"""Figures as a page has them: their JSON, and their arrays as bytes; maps as 8-bit codes, nothing stored twice."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import plotly.io

from captum_attattr.plots.canvas.codes import coarse, fitting, room

_SMALL = 1000  # bytes up to which an array stays in the JSON
_REST = 1e6  # bytes of a page beside its maps: plotly.js, and the thumbnails of all heads


class Content(NamedTuple):
    """A figure as `assets/draw.js` reads it: JSON, safe inside a script element, and the arrays that it refers to."""

    text: str
    arrays: bytes
    note: str = ""
    """What the page says of its numbers."""


def figure_content(figure: go.Figure, config: dict[str, Any]) -> Content:
    """Return a figure's content.

    `meta.differences` names the traces of maps: [difference, attribution, attention]. The last two travel as 8-bit
    codes, their hovers with two digits, and the page computes the first. Other maps (`z` of float32) become half
    floats, whose 11 bits are more than the three digits that a page shows, times a power of two, so that neither large
    nor small values lose bits. Large arrays in `meta` travel as they are.
    """
    content: dict[str, Any] = figure.to_dict()
    meta = content.get("layout", {}).get("meta")
    traces = content.get("data", [])
    arrays = bytearray()
    differences: list[tuple[int, int, int]] = []
    note = ""
    if isinstance(meta, dict):
        differences = meta.get("differences", [])
        note = _code(traces, differences, arrays)
        # What narrow pages show is in their HTML.
        content["layout"]["meta"] = _beside({k: v for k, v in meta.items() if k not in ("narrow", "small")}, arrays)
    for trace in traces:
        if isinstance(trace.get("z"), dict) and trace["z"].get("dtype") == "f4" and "," in trace["z"].get("shape", ""):
            trace["z"] = halves(_floats(trace["z"]))
    whole = {"data": traces, "layout": content.get("layout", {}), "frames": content.get("frames") or None}
    if isinstance(meta, dict) and "small" in meta:
        whole["small"] = meta["small"]
    # Not orjson, which plotly takes where it is installed: it refuses halves of surrogate pairs.
    parts = [f'"{name}": {plotly.io.json.to_json_plotly(part, engine="json")}' for name, part in whole.items()]
    options = json.dumps(config).replace("<", "\\u003c")
    return Content(f'{{{", ".join(parts)}, "config": {options}}}', bytes(arrays), note)


def _code(traces: list[dict[str, Any]], maps: list[tuple[int, int, int]], arrays: bytearray) -> str:
    """Put codes in the place of the maps that `differences` names, append them to the arrays, and return a note."""
    if not maps:
        return ""
    stacks = [np.stack([_floats(traces[triple[kind]]["z"]) for triple in maps]) for kind in (1, 2)]
    found = fitting(stacks[0], stacks[1], room(len(maps), _REST))
    for kind, codes in enumerate(found, 1):
        assert codes is not None
        how = {"dtype": codes.codes.dtype.str[1:], "levels": codes.levels, "shape": list(codes.codes.shape[1:])}
        for triple, one, largest in zip(maps, codes.codes, codes.largest, strict=True):
            traces[triple[kind]]["z"] = {"codes": len(arrays), "largest": float(largest), **how}
            arrays += one.tobytes()
    for triple in maps:
        del traces[triple[0]]["z"]
        for i in triple:
            traces[i]["hovertemplate"] = traces[i]["hovertemplate"].replace(".3~g", ".2~g")
    return coarse(*(codes.levels for codes in found if codes is not None))


def _floats(spec: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return a map as plotly's JSON holds it."""
    shape = [int(side) for side in spec["shape"].split(",")]
    return np.frombuffer(base64.b64decode(spec["bdata"]), dtype="<f4").reshape(shape)


def _beside(value: Any, arrays: bytearray) -> Any:
    """Return what a figure's `meta` holds, its large arrays appended to the others."""
    if isinstance(value, dict) and "bdata" in value:
        content = base64.b64decode(value["bdata"])
        if len(content) <= _SMALL:
            return value
        spec = {"array": len(arrays), "bytes": len(content), "dtype": value["dtype"]}
        arrays += content
        return spec
    if isinstance(value, dict):
        return {name: _beside(each, arrays) for name, each in value.items()}
    return value


def halves(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return an array as half floats times a unit, as `unpacked` of `assets/draw.js` reads them.

    What is not 0 does not become 0.
    """
    exact = values.astype(np.float64)
    largest = float(np.fmax.reduce(np.abs(exact), axis=None, initial=0.0))
    unit = 2.0 ** (math.frexp(largest)[1] - 15)  # the largest is near the top of what half floats hold
    packed = (exact / unit).astype("<f2")
    least = np.copysign(np.float16(2.0**-24), exact).astype("<f2")
    packed = np.where((packed == 0) & (exact != 0), least, packed)
    return {"halves": base64.b64encode(packed.tobytes()).decode("ascii"), "unit": unit, "shape": list(values.shape)}
