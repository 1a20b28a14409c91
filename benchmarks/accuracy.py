"""Error of the quadrature rules on the demonstration model, and of the adaptive default's own estimate.

Every rule's maps are compared with 96 Gauss-Legendre nodes: relative L2 distance, per sentence and layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from demo_model import load_demo_model

from captum_attattr import LayerAttAttr, PathIntegral, attention_layers

SENTENCES = [
    "Seldom has a movie so closely matched the spirit of a man and his work .",
    "A gorgeous , witty , seductive movie .",
    "It is never dull , but it is not a film that I would watch again .",
    "The plot is thin and the jokes are lame .",
    "Neither funny nor sad , and far too long .",
]
RULES = {
    "left sum, 64 (published code)": ("riemann_left", 64),
    "right sum, 20 (paper)": ("riemann_right", 20),
    "Gauss-Legendre, 4": ("gausslegendre", 4),
    "Gauss-Legendre, 8": ("gausslegendre", 8),
    "Gauss-Legendre, 12": ("gausslegendre", 12),
    "Gauss-Legendre, 50 (Captum's default)": ("gausslegendre", 50),
}


def distances(result: PathIntegral, reference: PathIntegral) -> Tensor:
    """(L,) relative L2 distance of each layer's map, for one sentence."""
    pairs = zip(result.attributions, reference.attributions, strict=True)
    return torch.tensor([float((ours - true).norm() / true.norm()) for ours, true in pairs])


def main() -> None:
    model, tokenizer = load_demo_model()

    def forward(ids: Tensor) -> Tensor:
        return model(ids).logits.softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(model))
    errors: dict[str, list[Tensor]] = {name: [] for name in [*RULES, "default"]}
    nodes, deltas, ratios = [], [], []
    for sentence in SENTENCES:
        ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
        target = int(forward(ids).argmax())
        reference = lattr.integrate(ids, target=target, n_steps=96)
        for name, (method, steps) in RULES.items():
            errors[name].append(distances(lattr.integrate(ids, None, target, None, steps, method), reference))
        default = lattr.integrate(ids, target=target)
        errors["default"].append(distances(default, reference))
        nodes.append(default.nodes[:, 0])
        deltas.append(float(default.delta.abs().max()))
        ratios.append(default.error[:, 0] / errors["default"][-1])
    print(
        f"{len(SENTENCES)} sentences, {len(lattr.layers)} layers; relative L2 distance from 96 Gauss-Legendre nodes\n"
    )
    print("| rule | median | worst |\n|---|---:|---:|")
    for name, values in errors.items():
        pooled = torch.cat(values)
        used = f", {int(torch.cat(nodes).min())} to {int(torch.cat(nodes).max())} nodes" if name == "default" else ""
        print(f"| {name}{used} | {float(pooled.median()):.0e} | {float(pooled.max()):.0e} |")
    print(f"\nThe default used {float(torch.cat(nodes).double().mean()):.1f} nodes a layer on average.")
    print(f"Its largest |delta| is {max(deltas):.1e}.")
    print(f"Its estimated error is at least {float(torch.cat(ratios).min()):.1f} times the true one.")


if __name__ == "__main__":
    main()
