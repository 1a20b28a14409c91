"""The joint path: nodes, estimated and true error, completeness, and the rows that the paper's path takes beside it.

The truth is a composite rule of 8 Gauss-Legendre nodes on each of many panels. `--decoder` takes SmolLM2-135M-Instruct
(see decoder.py) and "The capital of France is" -> " Paris" instead of the demonstration model and five sentences.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_attattr import ConvergenceWarning, LayerAttAttr, attention_layers
from captum_attattr.attribution.baselines import check_attention_baselines  # the dense rule runs chosen nodes,
from captum_attattr.attribution.inputs import make_batch  # which the public methods do not offer
from captum_attattr.attribution.preparation import prepared_sweep  # (as above)
from captum_attattr.attribution.rows import ALL, Row  # (as above)

SENTENCES = (
    "Seldom has a movie so closely matched the spirit of a man and his work .",
    "a gorgeous , witty film",
    "dull and lifeless",
    "the jokes are lame and the plot never works",
    "not nearly as bad as it could have been",
)


def dense(lattr: LayerAttAttr, ids: Tensor, target: int, start: str | None, panels: int) -> Tensor:
    """Return the maps of all layers, flattened, by 8 Gauss-Legendre nodes on each of equal panels."""
    x, w = np.polynomial.legendre.leggauss(8)
    nodes = ((np.arange(panels)[:, None] + (x + 1) / 2) / panels).ravel()
    weights = torch.from_numpy(np.tile(w / 2 / panels, panels))
    total: Any = 0.0
    baselines = check_attention_baselines(start, len(lattr.layers))
    with prepared_sweep(lattr.layers, make_batch(lattr.forward_func, ids, None, target), baselines, {}) as sweep:
        for part, weight in zip(np.array_split(nodes, panels), weights.tensor_split(panels), strict=True):
            rows = sweep.run([Row(0, ALL, float(node)) for node in part]).layers[ALL]
            total = total + (weight[torch.tensor(rows.rows), None] * rows.values.double()).sum(0)
    return total


def demonstration() -> list[tuple[str, LayerAttAttr, Tensor, int]]:
    from demo_model import load_demo_model

    model, tokenizer = load_demo_model()

    def forward(ids: Tensor) -> Tensor:
        return model(input_ids=ids).logits.softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(model))
    encoded = [tokenizer(text, return_tensors="pt")["input_ids"] for text in SENTENCES]
    with torch.no_grad():
        return [(text, lattr, ids, int(forward(ids).argmax())) for text, ids in zip(SENTENCES, encoded, strict=True)]


def decoder() -> list[tuple[str, LayerAttAttr, Tensor, int]]:
    from decoder import load

    model, tokenizer = load()

    def forward(ids: Tensor) -> Tensor:
        return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].softmax(-1)

    text = "The capital of France is"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    target = tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
    return [(text, LayerAttAttr(forward, attention_layers(model)), ids, target)]


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--decoder", action="store_true", help="SmolLM2 instead of the demonstration model")
    parser.add_argument("--tolerance", type=float, nargs="+", default=[1e-2, 1e-3])
    parser.add_argument("--panels", type=int, default=32, help="of the dense rule")
    parser.add_argument("--layers", action="store_true", help="run the paper's path too, to count its rows")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)  # the table has the errors
    print("| text | start | tolerance | nodes | estimated error | true error | delta | rows with path='layer' |")
    print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for text, lattr, ids, target in decoder() if args.decoder else demonstration():
        for start in (None, "sink"):
            truth = dense(lattr, ids, target, start, args.panels)
            for tolerance in args.tolerance:
                options: dict[str, Any] = {"attention_baselines": start, "tolerance": tolerance}
                rows = lattr.integrate(ids, target=target, **options).rows if args.layers else None
                result = lattr.integrate(ids, target=target, path="joint", **options)
                maps = torch.cat([part.flatten() for part in result.attributions]).double()
                true = float((maps - truth).norm() / truth.norm())
                print(
                    f"| {text:.24} | {start or 'zero'} | {tolerance:g} | {int(result.total_nodes[0])} "
                    f"| {float(result.total_error[0]):.1e} | {true:.1e} | {float(result.total_delta[0]):.1e} "
                    f"| {rows or 'not run'} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
