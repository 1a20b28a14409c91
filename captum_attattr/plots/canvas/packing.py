"""Figures as the JSON of a page: maps as half floats, nothing stored twice."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import plotly.io


def figure_json(figure: go.Figure, config: dict[str, Any]) -> str:
    """Return the JSON of a figure as `assets/draw.js` reads it, safe inside a script element.

    Arrays travel as base64. Maps (`z` of float32) become half floats, whose 11 bits are more than the three
    digits that a page shows, times a power of two, so that neither large nor small values lose bits. Traces in
    `meta.differences`, [trace, minuend, subtrahend], travel without their map, which the page computes.
    """
    content: dict[str, Any] = figure.to_dict()
    meta = content.get("layout", {}).get("meta")
    computed = {trace for trace, _, _ in meta.get("differences", ())} if isinstance(meta, dict) else set()
    traces = content.get("data", [])
    for i, trace in enumerate(traces):
        if i in computed:
            del trace["z"]
        elif isinstance(trace.get("z"), dict) and trace["z"]["dtype"] == "f4" and "," in trace["z"].get("shape", ""):
            shape = [int(side) for side in trace["z"]["shape"].split(",")]
            trace["z"] = halves(np.frombuffer(base64.b64decode(trace["z"]["bdata"]), dtype="<f4").reshape(shape))
    whole = {"data": traces, "layout": content.get("layout", {}), "frames": content.get("frames") or None}
    # Not orjson, which plotly takes where it is installed: it refuses halves of surrogate pairs.
    parts = [f'"{name}": {plotly.io.json.to_json_plotly(part, engine="json")}' for name, part in whole.items()]
    options = json.dumps(config).replace("<", "\\u003c")
    return f'{{{", ".join(parts)}, "config": {options}}}'


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
