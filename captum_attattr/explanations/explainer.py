"""`Explainer`: encoded texts of one model to explanations, in groups of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.attribution.baselines import check_attention_baselines
from captum_attattr.attribution.inputs import make_batch
from captum_attattr.attribution.integration import PathIntegral
from captum_attattr.attribution.layer_attattr import LayerAttAttr
from captum_attattr.attribution.methods.maps import Request
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.projections import head_count
from captum_attattr.runs.memory import ChunkSize, give_back

_CLEAN_ROWS = 32  # of a forward that gives predictions


class TokenAttAttr(LayerAttAttr):
    """Attributes to attention between the tokens of the first input, and to nothing else."""

    def token_count(self, inputs: tuple[Tensor, ...]) -> int:
        """Return how many tokens each example of a batch has."""
        return int(inputs[0].shape[1])

    def check_shapes(self, inputs: tuple[Tensor, ...], shapes: Sequence[torch.Size]) -> None:
        """Check that every layer has a map of the tokens.

        Raises:
            UnsupportedModelError: the model pools its tokens, or puts positions of its own beside them.
        """
        count = self.token_count(inputs)
        wrong = [i for i, (_, *map_) in enumerate(shapes) if map_ != [count, count]]
        if not wrong:
            return
        rows, columns = shapes[wrong[0]][1:]
        fitting = [layer.index for i, layer in enumerate(self.layers) if i not in wrong]
        raise UnsupportedModelError(
            f"{self.layers[wrong[0]]!r} has maps of {rows} x {columns} for {count} tokens: the model "
            + ("puts positions of its own beside the tokens" if columns > count else "pools its tokens")
            + (f"; layers={fitting} have maps of the tokens" if fitting else "")
            + ". LayerAttAttr attributes maps of any size"
        )


class Explainer:
    """Explains encoded texts of one model.

    Args:
        model, tokenizer, truncate: as in `TextModel`.
        settings: what is computed.
        contrasted: whether F is the difference of two outputs, for some text.
        reading: further arguments of `TextModel`.

    Attributes:
        output: what F is called.
        numbers: of the layers that are attributed.
        layers: those of them that have a head left.
    """

    MAPS_AT_ONCE = 2**28
    """Most attention entries (examples x layers x heads x T x T) of a group: 1 GiB of float32."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        truncate: bool | int,
        settings: Settings,
        contrasted: bool = False,
        **reading: Any,
    ) -> None:
        self.texts = self.read(model, tokenizer, truncate, **reading)
        self.texts.check_one_device()
        self.output = self.texts.chosen_output(settings.output, contrasted)
        usual = self.output == self.texts.output
        self.settings = settings.for_model(None if usual else self.output, self.texts.depth)
        self.numbers = list(range(self.texts.depth) if self.settings.layers is None else self.settings.layers)
        self.layers = self.texts.chosen_layers(self.numbers)
        if not self.layers:
            raise ValueError(f"layers={self.numbers}: `prune_heads` took all of their heads; choose others")
        self._told: Callable[[int], object] = int  # of rows that are about to be run
        self._attributions: dict[tuple[Any, ...], LayerAttAttr] = {}

    def read(self, model: nn.Module, tokenizer: Any, truncate: bool | int, **reading: Any) -> TextModel:
        """Return the model as its inputs and outputs are understood."""
        return TextModel(model, tokenizer, truncate, **reading)

    def attribution_of(self, forward: Callable[..., Tensor]) -> TokenAttAttr:
        """Return what attributes the outputs of a forward function."""
        return TokenAttAttr(forward, self.layers)

    def run(
        self, items: list[Encoded], progress: Callable[[int], object], rows: Callable[[int], object] = int
    ) -> Iterator[tuple[int, Explanation]]:
        """Explain encoded texts in groups of one length, longest first; yield each with its index.

        Args:
            items: the texts.
            progress: is told how many texts have just been explained.
            rows: is told how many rows are about to be run, many times within a long text.

        Raises:
            ValueError: a text is contrasted with what the model predicts of it, and has no other target; raised before
                any text is explained.
        """
        groups: dict[tuple[Any, ...], list[Encoded]] = {}
        for item in self._with_targets(items):
            groups.setdefault((item.length, item.form, item.contrast is None), []).append(item)
        heads = sum(head_count(layer) for layer in self.layers)
        for (length, *_), group in sorted(groups.items(), key=lambda pair: -pair[0][0]):
            size = ChunkSize(max(1, self.MAPS_AT_ONCE // (heads * length**2)))
            left = group
            while left:
                part = left[: size.rows]
                try:
                    explained = list(self._explain(part, rows))
                except (RuntimeError, MemoryError) as error:  # of predictions, or while maps are stored
                    size.shrink(error, len(part))
                    continue
                yield from explained
                left = left[len(part) :]
                progress(len(part))
                give_back()

    def _with_targets(self, items: list[Encoded]) -> list[Encoded]:
        """Return the texts with the predicted classes as targets of those that are contrasted and have none."""
        checked = list(items)
        for position, item in enumerate(items):
            if item.contrast is None or item.target is not None:
                continue
            with evaluation_mode(self.texts.model):
                predicted = self._predictions([item], self.texts.inputs([item]))[0][0]
            if predicted == item.contrast:
                raise ValueError(
                    f"contrast {self.texts.label(predicted)!r} of texts[{item.index}] is what the model predicts; give "
                    "the target to contrast it with, or another contrast"
                )
            checked[position] = replace(item, target=predicted)
        return checked

    def _predictions(self, group: list[Encoded], named: dict[str, Tensor]) -> tuple[list[int], list[float]]:
        """Return the predicted class of each text, and the probability of its target; `named` are their inputs."""
        predictions: list[int] = []
        probabilities: list[float] = []
        with torch.no_grad():
            for start in range(0, len(group), _CLEAN_ROWS):
                rows = slice(start, start + _CLEAN_ROWS)
                values = self.texts.probabilities(self.texts.logits({name: t[rows] for name, t in named.items()}))
                predicted = values.argmax(-1).tolist()
                targets = [p if i.target is None else i.target for i, p in zip(group[rows], predicted, strict=True)]
                wanted = torch.tensor(targets, device=values.device)
                predictions += predicted
                probabilities += values.gather(1, wanted[:, None])[:, 0].tolist()
        return predictions, probabilities

    def _explain(self, group: list[Encoded], rows: Callable[[int], object]) -> Iterator[tuple[int, Explanation]]:
        """Explain texts of one length."""
        texts, contrasted = self.texts, group[0].contrast is not None
        named = texts.inputs(group)
        inputs = tuple(named.values())
        further: tuple[Tensor, ...] = inputs[1:]
        if contrasted:
            further += (torch.tensor([[item.contrast] for item in group], device=texts.device),)
        with evaluation_mode(texts.model):
            predictions, probabilities = self._predictions(group, named)
            targets = [p if item.target is None else item.target for item, p in zip(group, predictions, strict=True)]
            self._told = rows
            result = self.scored(self._attribution(tuple(named), contrasted), inputs[0], further, targets)
        usual = self.output == texts.output and not contrasted
        for row, item in enumerate(group):
            probability = float(result.output[row]) if usual else probabilities[row]
            yield item.index, self.explanation(item, targets[row], predictions[row], probability, result, row)

    def scored(
        self, attribution: LayerAttAttr, inputs: Tensor, further: tuple[Tensor, ...], targets: list[int] | None
    ) -> PathIntegral:
        """Return the maps of a batch, by the method that is asked for; `targets` is None where F is one number."""
        settings = self.settings
        if (maps := ATTRIBUTIONS[settings.attribution].maps) is None:
            return attribution.integrate(
                inputs, target=targets, additional_forward_args=further, store="cpu", **settings.integral
            )
        request = Request(
            attribution.layers,
            make_batch(attribution.forward_func, inputs, further, targets),
            attribution.known,
            check_attention_baselines(settings.integral["attention_baselines"], len(attribution.layers)),
            settings.rule.internal_batch_size,
            settings.attention,
        )
        return maps(request).as_integral()

    def _attribution(self, names: tuple[str, ...], contrasted: bool) -> LayerAttAttr:
        """Return one object for all batches of these inputs: what it learns of the model holds for all of them."""
        if (names, contrasted) not in self._attributions:
            forward = self.texts.forward_function(names, self.output, contrasted)

            def told(*tensors: Tensor) -> Tensor:
                self._told(len(tensors[0]))
                return forward(*tensors)

            self._attributions[names, contrasted] = self.attribution_of(told)
        return self._attributions[names, contrasted]

    def explanation(
        self, item: Encoded, target: int, prediction: int, probability: float, result: PathIntegral, row: int
    ) -> Explanation:
        """Return the explanation of one row of a batch."""
        texts, numbers, dtype = self.texts, self.numbers, self.settings.dtype
        maps, attention = ([map_[row] for map_ in maps] for maps in (result.attributions, result.attention))
        by_layer = [values[:, row] for values in (result.delta.float(), result.error.float(), result.nodes)]
        if ATTRIBUTIONS[self.settings.attribution].heads:
            scores = texts.complete(maps, numbers, dtype)
            by_layer = [texts.by_layer(values, numbers) for values in by_layer]
        else:
            numbers = [layer.index for layer in self.layers[-len(maps) :]]
            scores = torch.stack(maps).to(dtype)
        return self.made(
            item,
            attributions=self._kept(item, scores),
            attention=texts.complete(attention, numbers, dtype) if attention else None,
            **dict(zip(("delta", "error", "nodes"), by_layer, strict=True)),
            target=target,
            label=texts.label(target),
            probability=probability,
            prediction=prediction,
            value=float(result.output[row]),
            note=texts.note,
            output=self.output,
            contrast=None if item.contrast is None else texts.label(item.contrast),
            contrast_target=item.contrast,
            attribution=self.settings.name,
            path=self.settings.path,
            baseline=self.settings.baseline,
            layers=numbers,
            total_delta=float(result.total_delta[row]),
            total_error=float(result.total_error[row]),
            total_nodes=int(result.total_nodes[row]),
        )

    def made(self, item: Encoded, **found: Any) -> Explanation:
        """Return the explanation of an example, of what was read and what was found."""
        return Explanation(
            tokens=self.texts.tokenizer.convert_ids_to_tokens(item.ids),
            text=item.text,
            segments=item.segments,
            special=item.special,
            inputs=item.encoding,
            scheme=self.texts.scheme,
            **found,
        )

    def _kept(self, item: Encoded, maps: Tensor) -> Tensor:
        """Return maps in the type that they are kept in.

        Raises:
            ValueError: they do not fit it.
        """
        if maps.dtype == torch.float16 and maps.isinf().any():
            raise ValueError(
                f"dtype=torch.float16 holds numbers up to 65,504, and texts[{item.index}] has scores beyond that; use "
                "torch.bfloat16 or torch.float32"
            )
        return maps
