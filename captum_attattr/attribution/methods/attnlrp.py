"""AttnLRP: relevance handed down from the output, each operation by its own rule (Achtibat, Hatefi, Dreyer, Jain,
Wiegand, Lapuschkin, Samek: "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers", ICML 2024).

    Score_lh = A_lh * dF/dA_lh,      the gradient taken by these rules:

    a product of two tensors of the model's states (a matrix product or one entry by entry): half to each
    an activation function f:        f(x) / x, held, instead of f'(x); nothing where x = 0
    LayerNorm, RMSNorm:              their division by the size of what they are given is held
    linear maps, sums and softmax:   their own gradient

so that at every operation input times gradient is the relevance that it is handed (the gradient form of the paper's
rules, as the authors' library LXT has it). The values of all operations stay what they are, and so does F: what the
forward function does with the model's output (a softmax, a difference) has its own gradient.

One forward and one backward give the maps (B, H, T, T) of all layers. An edge's score is what of F came through it, by
these rules; the values that it carried have got an equal share, so all edges of a layer make up half of what came
through the layer's heads. (LXT shows the relevance of tokens; this is the relevance of the attention on the way.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_attattr.attribution.facts import close
from captum_attattr.attribution.methods.gradients import gradients
from captum_attattr.attribution.methods.maps import Maps, Request, room
from captum_attattr.attribution.methods.relevance_rules import relevance_rules
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import LayerCall
from captum_attattr.model.attention_layers import family_name


def attnlrp(request: Request) -> Maps:
    """Return A times the gradient by the rules, (B, H, T, T) of every layer.

    Raises:
        UnsupportedModelError: something nonlinear in the model has no rule, or its output changes under the rules.
        ValueError: F carries no gradient to the attention, or one that is not finite.
    """
    with request.chunks() as (sweep, each):
        maps, kept = room(sweep), room(sweep) if request.keep_attention else []
        output = torch.zeros(sweep.batch, dtype=maps[0].dtype, device="cpu")
        layers = sweep.control.layers

        def run(examples: range) -> None:
            rows = torch.tensor(examples, device=sweep.device)
            attention: dict[int, Tensor] = {}

            def visit(layer: int, call: LayerCall) -> Tensor:
                attention[layer] = call.tensor if call.tensor.requires_grad else call.tensor.detach().requires_grad_()
                return attention[layer]

            with torch.enable_grad(), sweep.control.watch(visit), relevance_rules(layers):
                outputs = sweep.evaluate(rows)
            expected = sweep.uncontrolled[rows]
            if not close(outputs.detach(), expected, sweep.facts.dtype):
                raise UnsupportedModelError(
                    f"{family_name(layers[0].model)}: its output by AttnLRP's rules is {outputs.tolist()}, and "
                    f"{expected.tolist()} by itself; use another attribution"
                )
            order = range(len(layers))
            part = slice(examples.start, examples.stop)
            for layer, gradient in zip(order, gradients(outputs, [attention[i] for i in order], layers), strict=True):
                matrix = attention[layer].detach().to(maps[layer])
                maps[layer][part] = matrix * gradient.to(maps[layer])
                if kept:
                    kept[layer][part] = matrix
            output[part] = outputs.detach().to(output)

        each(run)
    return Maps(maps, output, kept, sweep.batch)
