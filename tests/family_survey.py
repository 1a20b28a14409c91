"""Attributes a tiny random model of every family that transformers ships, or says the reason why not.

    python tests/family_survey.py                    # all
    python tests/family_survey.py bert qwen3_next    # some

A model counts as attributed if every layer's map has one size and is not zero. A family that fails with anything
else than an `UnsupportedModelError` is broken.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from typing import Any

import torch
import transformers
from tiny_families import model_types, tiny_model
from torch import Tensor

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers
from captum_attattr.model.sample_inputs import Runs, first_line


def survey(family: str) -> tuple[str, str]:
    """Build and attribute one family: what came out, and its reason."""
    try:
        model = tiny_model(family)
    except Exception as error:
        return "not built", first_line(error)
    try:
        layers = attention_layers(model)
    except UnsupportedModelError as error:
        return ("no attention" if "no attention layer" in str(error) else "refused"), first_line(error)
    try:
        called, inputs = Runs(model, [layer.module for layer in layers], None).calls[0]
    except UnsupportedModelError as error:
        return "no inputs", first_line(error)
    names = [name for name, value in inputs.items() if isinstance(value, Tensor)]
    rest = {name: value for name, value in inputs.items() if name not in names}

    def forward(*tensors: Tensor) -> Any:
        output = called(**dict(zip(names, tensors, strict=True)), **rest)
        first = next(v for v in output.values() if isinstance(v, Tensor) and v.is_floating_point())
        return first.float().flatten(1)[:, :8].sum(1)

    try:
        maps = LayerAttAttr(forward, layers).attribute(tuple(inputs[name] for name in names), n_steps=1)
    except UnsupportedModelError as error:
        return "refused", first_line(error)
    zero = [layer.index for layer, map_ in zip(layers, maps, strict=True) if not map_.any()]
    return "attributed", f"{len(maps)} layers" + (f", zero maps of layers {zero}" if zero else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="model types; all by default")
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for family in parser.parse_args().families or model_types():
        try:
            outcome, detail = survey(family)
        except Exception as error:
            outcome, detail = "broken", f"{type(error).__name__}: {first_line(error)}"
        counts[outcome] += 1
        print(f"{family} | {outcome} | {detail}", flush=True)
    print(dict(counts))
    sys.exit(bool(counts["broken"]))


if __name__ == "__main__":
    main()
