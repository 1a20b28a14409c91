"""F of a model with edges of its attention removed, for many choices of edges, many rows at a time.

Removing an edge sets its gate to 0 on the attention A that the row computes itself, from whatever hidden states the
removals below have left: with "zero" nothing is renormalised; with "sink" the mass goes to the first key that the
query may see. Rows enter the model at the first layer in which something is removed. With "replace" whole tokens are
removed from the text itself: another token stands in their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.attribution.baselines import sink
from captum_attattr.attribution.facts import Facts, close
from captum_attattr.attribution.inputs import Batch, make_batch
from captum_attattr.attribution.integration import default_limit
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.attribution.preparation import prepared_sweep
from captum_attattr.attribution.rows import Row
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.evaluation.gates import Gates
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.image_explanation import ImageExplanation
from captum_attattr.explanations.image_kinds import image_model, takes_images
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.explanations.translation_explanation import TranslationExplanation
from captum_attattr.model.attention_control import LayerCall, times_values
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.wrappers import TASKS, writes_from_source
from captum_attattr.runs.memory import in_chunks

_NOT_AGAIN = (
    "{} is of an encoder-decoder that writes, which is not run again with attention removed; of these there are maps "
    "and token scores, by explain_generation"
)


class Removals:
    """Runs one model on explained examples again, with edges removed.

    Args:
        model, tokenizer: those that were explained; of pictures the processor.
        removal: "zero", "sink", or "replace" for tokens.
        limit: most rows of one forward; None for a default by device.
        reading: further arguments of `TextModel`.

    Attributes:
        rows: how many rows have been run.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, removal: str = "zero", limit: int | None = None, **reading: Any
    ) -> None:
        if takes_images(tokenizer) and reading.get("task") is None:
            self.texts: TextModel = image_model(model, tokenizer)
        elif writes_from_source(model):
            raise TypeError(_NOT_AGAIN.format(type(model).__name__))
        else:
            self.texts = TextModel(model, tokenizer, False, tasks=TASKS, **reading)
        self.removal = removal
        self.limit = limit
        self.rows = 0
        self._known: dict[object, Facts] = {}

    def checked(self, explanations: Any) -> list[Explanation]:
        """Return explanations that this model can run again.

        Raises:
            TypeError: something else than explanations.
            ValueError: there is none; one of another model; one whose inputs are not known.
        """
        if isinstance(explanations, Explanation) or not isinstance(explanations, Iterable):
            raise TypeError(
                f"explanations must be a list of them, not {type(explanations).__name__}; use [explanation]"
            )
        checked = [self._again(i, each) for i, each in enumerate(explanations)]
        if not checked:
            raise ValueError("explanations is empty: give at least one")
        return checked

    def _again(self, index: int, given: Any) -> Explanation:
        """Return one explanation with its inputs."""
        explanation: Explanation = checks.instance(f"explanations[{index}]", given, Explanation, "an Explanation")
        if isinstance(explanation, TranslationExplanation):
            raise TypeError(_NOT_AGAIN.format(f"explanations[{index}]"))
        texts, (_, heads, *_) = self.texts, explanation.attributions.shape
        if self.removal == "replace" and isinstance(explanation, ImageExplanation):
            raise ValueError("removal='replace' puts other tokens in a text, and this is a picture: use 'zero', 'sink'")
        texts.meet(explanation)
        where = f"explanations[{index}] is of another model"
        if ATTRIBUTIONS[explanation.attribution].heads and heads != texts.width:
            raise ValueError(f"{where}: it has {heads} heads a layer, and this one {texts.width}")
        if explanation.layers[-1] >= texts.depth:
            raise ValueError(f"{where}: it has the layer {explanation.layers[-1]}, and this one {texts.depth} layers")
        if (explanation.output == "score") != texts.regression:
            raise ValueError(f"{where}: its output is {explanation.output!r}, and this one's {texts.output!r}")
        if explanation.task != texts.task.name:
            told = explanation.task or "classification or next_token"
            raise ValueError(f"{where}: its task is {told}, and this one's {texts.task_name}")
        for name in ("target", "contrast_target"):
            if (getattr(explanation, name) or 0) >= (count := texts.task.count(len(explanation.tokens))):
                raise ValueError(
                    f"{where}: its {name} {getattr(explanation, name)} is out of range: this one has {count}"
                )
        if explanation.inputs is not None:
            return explanation
        item = texts.encode(index, explanation.text)
        if texts.tokenizer.convert_ids_to_tokens(item.ids) != explanation.tokens:
            raise ValueError(
                f"explanations[{index}] cannot be run again: it does not hold its inputs, and its text makes other "
                "tokens now; explain the text anew"
            )
        return replace(explanation, inputs=item.encoding)

    def layers(self, explanation: Explanation) -> list[AttentionLayer]:
        """Return the layers in which edges are removed: those of the maps, or all where a map stands for all."""
        return self.texts.chosen_layers(self.numbers(explanation))

    def numbers(self, explanation: Explanation) -> list[int]:
        """Return the numbers of these layers, also of those that have no head left."""
        by_layer = ATTRIBUTIONS[explanation.attribution].layers
        return list(explanation.layers) if by_layer else list(range(self.texts.depth))

    def run(
        self, explanations: Sequence[Explanation], wanted: Sequence[Sequence[Gates]]
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the index of each explanation with F of its rows, in groups of one length.

        Args:
            explanations: checked by `again`.
            wanted: the rows of each.

        Yields:
            (index, (1 + rows,)): F as it is, then F of each row, float64 on the CPU.

        Raises:
            ValueError: F as it is differs from the explanation's: it is another model's.
        """
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, explanation in enumerate(explanations):
            inputs = explanation.inputs or {}
            key = (tuple((name, tuple(t.shape)) for name, t in inputs.items()), explanation.contrast_target is None)
            groups.setdefault((*key, explanation.output, tuple(explanation.layers)), []).append(i)
        for members in groups.values():
            yield from self._group([explanations[i] for i in members], [wanted[i] for i in members], members)

    def _group(
        self, explanations: list[Explanation], wanted: list[Sequence[Gates]], indices: list[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Run explanations whose inputs have the same form."""
        batch = self.batch(explanations)
        layers = self.layers(explanations[0])
        with evaluation_mode(self.texts.model), prepared_sweep(layers, batch, 0.0, self._known) as sweep:
            for i, explanation in enumerate(explanations):
                _check_same(indices[i], explanation, float(sweep.uncontrolled[i]), sweep)
            for i, gates in enumerate(wanted):
                if self.removal == "replace":
                    values = self._replaced(explanations[i], gates, default_limit(sweep))
                else:
                    values = self._outputs(sweep, layers, explanations[i], i, gates)
                yield indices[i], torch.cat((sweep.uncontrolled[i : i + 1].double().cpu(), values))

    def batch(self, explanations: Sequence[Explanation]) -> Batch:
        """Return the inputs of explanations of one form, with F of their targets."""
        texts, first = self.texts, explanations[0]
        names = list(first.inputs or {})
        tensors = [torch.cat([(e.inputs or {})[name] for e in explanations]).to(texts.device) for name in names]
        positions = [e.positions[0] for e in explanations if texts.task.reads_one]
        beside = texts.beside([e.contrast_target for e in explanations], positions)
        every = texts.task.prepared(dict(zip(names, tensors, strict=True))) | beside
        inputs, *further = every.values()
        forward = texts.forward_function(every, first.output)
        return make_batch(forward, inputs, tuple(further), [e.target for e in explanations])

    def _outputs(
        self, sweep: Sweep, layers: list[AttentionLayer], explanation: Explanation, example: int, gates: Sequence[Gates]
    ) -> Tensor:
        """Return F of one example's rows."""
        numbers = self.numbers(explanation)
        index = [numbers.index(layer.index) for layer in layers]
        where = [set(each.layers) for each in gates]
        todo = [i for i, changed in enumerate(where) if changed.intersection(index)]
        values = torch.full((len(gates),), float(sweep.uncontrolled[example]), dtype=torch.float64, device="cpu")
        if not todo:
            return values
        sweep.run_clean([example], backward=False)

        def run(part: range) -> None:
            chosen, changed = [gates[todo[i]] for i in part], [where[todo[i]] for i in part]
            first = [next(layer for layer in sweep.facts.order if index[layer] in each) for each in changed]
            rows = [Row(example, layer, float(i)) for i, layer in enumerate(first)]

            def change(layer: int, call: LayerCall, listed: list[int]) -> Tensor | None:
                at = [position for position, row in enumerate(listed) if index[layer] in changed[row]]
                if not at:
                    return None
                kept = layers[layer].kept
                heads = slice(call.shape[0]) if kept is None else list(kept.indices)
                opened = [chosen[listed[position]].open(index[layer]) for position in at]
                opened = [each[heads] if len(each) > 1 else each for each in opened]
                return self._gated(call, torch.tensor(at, device=call.tensor.device), opened)

            values[todo[part.start : part.stop]] = sweep.run_changed(rows, change).double().cpu()
            self.rows += len(part)

        in_chunks(len(todo), self.limit or default_limit(sweep), run)
        del sweep.clean[example]
        return values

    def _replaced(self, explanation: Explanation, gates: Sequence[Gates], limit: int) -> Tensor:
        """Return F of one example's rows, with other tokens in the place of those that are removed."""
        single = self.batch([explanation])
        opened = torch.stack([each.open(0)[0, 0] for each in gates]).to(single.device)
        name = list(explanation.inputs or {}).index("input_ids")
        values = torch.empty(len(gates), dtype=torch.float64, device="cpu")

        @torch.no_grad()
        def run(part: range) -> None:
            rows = torch.zeros(len(part), dtype=torch.long, device=single.device)
            inputs = single.arguments(rows)
            ids = inputs[name].where(opened[part.start : part.stop], self.replacement)
            arguments = (*inputs[:name], ids, *inputs[name + 1 :])
            batch = make_batch(single.forward, arguments[0], arguments[1:], single.target * len(part))
            every = torch.arange(len(part), device=single.device)
            values[part.start : part.stop] = batch.evaluate(every).double().cpu()
            self.rows += len(part)

        in_chunks(len(gates), self.limit or limit, run)
        return values

    @property
    def replacement(self) -> int:
        """The id of the token that takes the place of those that are replaced.

        Raises:
            ValueError: the tokenizer has none.
        """
        for name in ("mask", "eos", "pad", "unk"):
            token = getattr(self.texts.tokenizer, f"{name}_token_id", None)
            if token is not None:
                return int(token)
        raise ValueError("removal='replace': the tokenizer has no mask, end-of-text, padding or unknown token")

    def _gated(self, call: LayerCall, rows: Tensor, opened: list[Tensor]) -> Tensor:
        """Return what takes the place of a call's tensor, where edges of some of its rows are removed."""
        attention = call.attention(rows)
        gates = torch.stack([each.expand(attention.shape[1:]) for each in opened]).to(attention.device)
        left = attention * gates
        if self.removal == "sink":
            left = left + sink(0, attention * ~gates, rows, call.visible(rows))
        part = left if call.value is None else times_values(left, call.value[rows])
        replaced = call.tensor.clone()
        replaced[rows] = part.to(replaced.dtype)
        return replaced


def _check_same(index: int, explanation: Explanation, value: float, sweep: Sweep) -> None:
    """Check that F is what the explanation says.

    Raises:
        ValueError: it is not.
    """
    known = explanation.value
    if known is None or math.isnan(known):
        return
    if not close(torch.tensor([value]), torch.tensor([known]), sweep.facts.dtype):
        raise ValueError(
            f"explanations[{index}] is of another model: its F is {known:.6g}, and this one gives {value:.6g} for the "
            "same inputs and target"
        )
