"""Speed and memory of the sweep beside Captum's integrated gradients, on one model and one input, in one run.

The model has BERT-base's shape and random weights. Timed in turn, several times:
(a) Captum's IntegratedGradients in attention space, one layer after another, 50 Gauss-Legendre nodes, as one writes
    it without this package: a new attention function in transformers' attention interface;
(a') the same through `LayerAttAttr.attention_forward`, which also spares Captum the parameters' gradients;
(b) the sweep over all layers, 48 Gauss-Legendre nodes;
(c) the default, which chooses its nodes;
(d) a plain float32 matrix product of the model's own shapes, the machine's rate for such work.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import captum
import torch
import transformers
from captum.attr import IntegratedGradients
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, BertForSequenceClassification
from transformers.masking_utils import eager_mask
from transformers.models.bert.modeling_bert import eager_attention_forward

from captum_attattr import AttentionLayer, LayerAttAttr, PathIntegral, attention_layers

CAPTUM_NODES, SWEEP_NODES = 50, 48


def make_model(device: str) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(num_labels=2)).eval().to(device)


class PlainAttention:
    """Integrated gradients in attention space as a user of Captum and transformers would write them."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.model = model
        self.given: dict[int, Tensor] = {}  # attention to use, by id of the attention module
        self.seen: list[Tensor] = []
        self.modules = [block.attention.self for block in model.bert.encoder.layer]
        AttentionInterface.register("plain", self)
        AttentionMaskInterface.register("plain", eager_mask)

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The attention function: the model's own, or the given attention times the values."""
        if id(module) in self.given:
            attention = self.given[id(module)]
            return (attention @ value).transpose(1, 2).contiguous(), attention
        output, attention = eager_attention_forward(module, query, key, value, *args, **kwargs)
        if not torch.is_grad_enabled():
            self.seen.append(attention)
        return output, attention

    def attribute(self, ids: Tensor) -> list[Tensor]:
        """Return the maps of all layers, one after another."""
        usual, self.model.config._attn_implementation = self.model.config._attn_implementation, "plain"
        maps, self.seen = [], []
        with torch.no_grad():
            self.model(ids)
        for module, attention in zip(self.modules, list(self.seen), strict=True):

            def forward(attention: Tensor, ids: Tensor, module: nn.Module = module) -> Tensor:
                self.given = {id(module): attention}
                return self.model(ids).logits.softmax(-1)

            maps.append(IntegratedGradients(forward).attribute(attention, 0, 1, ids, n_steps=CAPTUM_NODES))
        self.given, self.model.config._attn_implementation = {}, usual
        return maps


def useful_operations(config: BertConfig, tokens: int, nodes: int) -> float:
    """Return the multiplications and additions that the gradients need, two per multiply-add.

    A block's six linear maps take 24 T D^2 forward and as many backward (no weight gradients), its two attention
    products 4 T^2 D forward and twice that backward. In the block of the layer that is attributed, a row starts at
    attention times values: no query, key and value maps, one product forward and one backward.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    linear, product = 2 * tokens * width**2, 2 * tokens**2 * width
    branching = 2 * 9 * linear + 2 * product
    above = 2 * 12 * linear + 6 * product
    return float(nodes * (layers * branching + layers * (layers - 1) / 2 * above))


def matrix_rate(device: str, width: int, tokens: int) -> float:
    """Return the best rate, in operations per second, over the shapes that the blocks' linear maps have."""
    best = 0.0
    for rows in (tokens, 1_024, 3_072):
        for columns in (width, 4 * width):
            x, w = torch.randn(rows, width, device=device), torch.randn(width, columns, device=device)
            times = [seconds(lambda x=x, w=w: [x @ w for _ in range(20)], device) for _ in range(5)]
            best = max(best, 20 * 2 * rows * width * columns / min(times))
    return best


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))


def seconds(run: Callable[[], object], device: str) -> float:
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def peak_megabytes(args: argparse.Namespace, nodes: int) -> float:
    """Return the peak memory of a fresh process that runs the sweep with this many nodes."""
    command = [sys.executable, __file__, "--peak", str(nodes), "--tokens", str(args.tokens), "--device", args.device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(args: argparse.Namespace, sweep: Callable[[int | None], PathIntegral]) -> None:
    sweep(args.peak)
    if torch.device(args.device).type == "cuda":
        print(torch.cuda.max_memory_allocated(args.device) / 2**20)
    else:
        import resource

        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def captum_through_package(lattr: LayerAttAttr, layers: Sequence[AttentionLayer], ids: Tensor) -> list[Tensor]:
    """Return Captum's maps of all layers, each through `LayerAttAttr.attention_forward`."""
    maps = []
    for layer in layers:
        one = LayerAttAttr(lattr.forward_func, layer)
        gradients = IntegratedGradients(one.attention_forward)
        maps.append(gradients.attribute(one.attention(ids), 0, 1, ids, n_steps=CAPTUM_NODES))
    return maps


def print_table(middle: dict[str, float], default: PathIntegral) -> None:
    """Print the median seconds of (a) to (c)."""
    names = {
        "a": f"Captum IntegratedGradients, layer by layer, {CAPTUM_NODES} nodes",
        "a'": "the same through LayerAttAttr.attention_forward",
        "b": f"sweep, {SWEEP_NODES} Gauss-Legendre nodes",
        "c": f"sweep, default ({int(default.nodes.min())} to {int(default.nodes.max())} nodes a layer)",
    }
    print("| | what | seconds | times faster than (a) |\n|---|---|---:|---:|")
    for name, what in names.items():
        print(f"| ({name}) | {what} | {middle[name]:.2f} | {middle['a'] / middle[name]:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = make_model(args.device)
    ids = torch.randint(5, 30_000, (1, args.tokens), device=args.device)
    layers = attention_layers(model)
    lattr = LayerAttAttr(lambda ids: model(ids).logits.softmax(-1), layers)

    def sweep(nodes: int | None) -> PathIntegral:
        limit = 64 if args.peak else None
        return lattr.integrate(ids, target=1, n_steps=nodes, internal_batch_size=limit)

    if args.peak:
        print_peak(args, sweep)
        return
    plain = PlainAttention(model)
    runs: dict[str, Callable[[], object]] = {
        "a": lambda: plain.attribute(ids),
        "a'": lambda: captum_through_package(lattr, layers, ids),
        "b": lambda: sweep(SWEEP_NODES),
        "c": lambda: sweep(None),
    }
    lattr.attribute(ids, target=1, n_steps=2)  # warm up
    times: dict[str, list[float]] = {name: [] for name in runs}
    rates = []
    for _ in range(args.repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, args.device))
        rates.append(matrix_rate(args.device, model.config.hidden_size, args.tokens))
    middle = {name: statistics.median(values) for name, values in times.items()}
    rate, default = statistics.median(rates), sweep(None)
    worst = max(
        float((ours - theirs).norm() / theirs.norm())
        for ours, theirs in zip(default.attributions, plain.attribute(ids), strict=True)
    )
    achieved = useful_operations(model.config, args.tokens, SWEEP_NODES) / middle["b"]
    device = f"CPU, {torch.get_num_threads()} threads" if args.device == "cpu" else args.device
    if torch.device(args.device).type == "cuda":
        device = torch.cuda.get_device_name(args.device)
    print(f"torch {torch.__version__}, captum {captum.__version__}, transformers {transformers.__version__}, {device}")
    print(f"BERT-base shape, {args.tokens} tokens, median of {args.repeats} runs in turn\n")
    print_table(middle, default)
    print(f"\n(d) matrix product: {rate / 1e9:.0f} GFLOP/s; (b) reaches {achieved / 1e9:.0f} = {achieved / rate:.0%}")
    print(f"default against (a)'s maps, worst layer, relative L2: {worst:.1e}")
    few, many = peak_megabytes(args, 24), peak_megabytes(args, 96)
    print(f"peak memory, 64 rows a chunk: 24 nodes {few:.0f} MiB, 96 nodes {many:.0f} MiB ({many / few - 1:+.1%})")


if __name__ == "__main__":
    main()
