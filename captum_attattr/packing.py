"""Figures as the JSON of a page: maps in half the room, nothing twice."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io


def figure_json(figure: go.Figure, config: dict[str, Any]) -> str:
    """A figure as `assets/draw.js` takes it, safe inside a script element.

    Arrays travel as base64. Maps (`z` of float32) become half floats, whose 11 bits are more than the three
    digits that a page shows, times a power of two, so that neither large nor small values lose bits. What
    `meta.differences` names, [trace, minuend, subtrahend], is left out and computed in the page.
    """
    content: dict[str, Any] = figure.to_dict()
    meta = content.get("layout", {}).get("meta")
    derived = {trace for trace, _, _ in meta.get("differences", ())} if isinstance(meta, dict) else set()
    traces = content.get("data", [])
    for i, trace in enumerate(traces):
        if i in derived:
            del trace["z"]
        elif isinstance(trace.get("z"), dict) and trace["z"]["dtype"] == "f4" and "," in trace["z"].get("shape", ""):
            trace["z"] = _halves(trace["z"])
    whole = {"data": traces, "layout": content.get("layout", {}), "frames": content.get("frames") or None}
    # Not orjson, which plotly takes where it is installed: it refuses halves of surrogate pairs.
    parts = [f'"{name}": {plotly.io.json.to_json_plotly(part, engine="json")}' for name, part in whole.items()]
    options = json.dumps(config).replace("<", "\\u003c")
    return f'{{{", ".join(parts)}, "config": {options}}}'


def _halves(array: dict[str, str]) -> dict[str, Any]:
    """From plotly's typed array, {"dtype": "f4", "bdata": ..., "shape": "3, 4"}."""
    values = np.frombuffer(base64.b64decode(array["bdata"]), dtype="<f4").astype(np.float64)
    largest = float(np.fmax.reduce(np.abs(values), initial=0.0))
    unit = 2.0 ** (math.frexp(largest)[1] - 15)  # the largest is near the top of what half floats hold
    halves = base64.b64encode((values / unit).astype("<f2").tobytes()).decode("ascii")
    return {"halves": halves, "unit": unit, "shape": [int(side) for side in array["shape"].split(",")]}
