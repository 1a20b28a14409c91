"""`Explainer`: encoded texts of one model to explanations, in groups of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
from captum_attattr.explanations.targets import each
from captum_attattr.explanations.tasks.whole_text import CONTRAST
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.projections import head_count
from captum_attattr.model.wrappers import TASKS
from captum_attattr.runs.memory import ChunkSize, give_back

_CLEAN_ROWS = 32  # of a forward that gives predictions


class TokenAttAttr(LayerAttAttr):
    """Attributes to attention between the tokens of the first input, and to nothing else."""

    def token_count(self, inputs: tuple[Any, ...]) -> int:
        """Return how many tokens each example of a batch has."""
        return int(inputs[0].shape[1])

    def check_shapes(self, inputs: tuple[Any, ...], shapes: Sequence[torch.Size]) -> None:
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
    kind: type[Explanation] = Explanation
    """What is made of a text."""

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
        return TextModel(model, tokenizer, truncate, **{"tasks": TASKS} | reading)

    def attribution_of(self, forward: Callable[..., Tensor]) -> TokenAttAttr:
        """Return what attributes the outputs of a forward function."""
        return TokenAttAttr(forward, self.layers)

    def encoded(self, texts: Sequence[Any], target: Any, contrast: Any) -> list[Encoded]:
        """Tokenize and check texts, each once for every decision about it that is asked for.

        Args:
            texts: as `sequence_of` returns them.
            target, contrast: as in `explain`.

        Raises:
            TypeError, ValueError: as in `explain`.
        """
        targets = each("target", target, len(texts), self.texts.task.several)
        contrasts = each("contrast", contrast, len(texts))
        return self.decided(
            [item for i, text in enumerate(texts) for item in self.texts.encode_each(i, text, targets[i], contrasts[i])]
        )

    def decided(self, items: list[Encoded]) -> list[Encoded]:
        """Return the texts with their targets where these follow from the model's own output, each maybe several times.

        Raises:
            ValueError: a text is contrasted with what the model predicts of it, and has no other target.
        """
        texts, found = self.texts, []
        for item in items:
            if not texts.task.undecided(item):
                found.append(item)
                continue
            with evaluation_mode(texts.model), torch.no_grad():
                output = texts.output_of(texts.inputs([item]))
            found += texts.task.decided(item, output)
        return found

    def decided_one(self, item: Encoded) -> Encoded:
        """Return what `decided` does of a text with one target.

        Raises:
            ValueError: as `decided`, or several decisions are asked for.
        """
        found = self.decided([item])
        if len(found) != 1:
            raise ValueError(f"texts[{item.index}]: {len(found)} decisions are asked for; here one is explained")
        return found[0]

    def run(
        self, items: list[Encoded], progress: Callable[[int], object], rows: Callable[[int], object] = int
    ) -> Iterator[tuple[int, Explanation]]:
        """Explain encoded texts in groups of one length, longest first; yield each with its position among them.

        Args:
            items: the texts.
            progress: is told how many texts have just been explained.
            rows: is told how many rows are about to be run, many times within a long text.

        Raises:
            ValueError: as `decided`; raised before any text is explained.
        """
        groups: dict[tuple[Any, ...], list[tuple[int, Encoded]]] = {}
        for i, item in enumerate(self.decided(items)):
            groups.setdefault((item.length, item.form, item.contrast is None), []).append((i, item))
        heads = sum(head_count(layer) for layer in self.layers)
        for (length, *_), group in sorted(groups.items(), key=lambda pair: -pair[0][0]):
            size = ChunkSize(max(1, self.MAPS_AT_ONCE // (heads * length**2)))
            left = group
            while left:
                part = left[: size.rows]
                try:
                    explained = list(self._explain([item for _, item in part], rows))
                except (RuntimeError, MemoryError) as error:  # of predictions, or while maps are stored
                    size.shrink(error, len(part))
                    continue
                yield from zip([i for i, _ in part], explained, strict=True)
                left = left[len(part) :]
                progress(len(part))
                give_back()

    def _predictions(self, group: list[Encoded], named: dict[str, Tensor]) -> tuple[list[int], list[float]]:
        """Return the predicted class of each text, and the probability of its target; `named` are their inputs."""
        predictions: list[int] = []
        probabilities: list[float] = []
        with torch.no_grad():
            for start in range(0, len(group), _CLEAN_ROWS):
                rows = slice(start, start + _CLEAN_ROWS)
                values = self.texts.probabilities(self.texts.logits({name: t[rows] for name, t in named.items()}))
                predicted = self.texts.task.predicted(group[rows], values)
                targets = [p if i.target is None else i.target for i, p in zip(group[rows], predicted, strict=True)]
                wanted = torch.tensor(targets, device=values.device)
                predictions += predicted
                probabilities += values.gather(1, wanted[:, None])[:, 0].tolist()
        return predictions, probabilities

    def _explain(self, group: list[Encoded], rows: Callable[[int], object]) -> Iterator[Explanation]:
        """Explain texts of one length."""
        texts = self.texts
        named = texts.inputs(group)
        beside = texts.beside([item.contrast for item in group], [item.position for item in group])
        with evaluation_mode(texts.model):
            read = named | {name: tensor for name, tensor in beside.items() if name != CONTRAST}
            predictions, probabilities = self._predictions(group, read)
            targets = [p if item.target is None else item.target for item, p in zip(group, predictions, strict=True)]
            self._told = rows
            every = named | beside
            inputs, *further = every.values()
            result = self.scored(self._attribution(tuple(every)), inputs, tuple(further), targets)
        usual = self.output == texts.output and group[0].contrast is None
        for row, item in enumerate(group):
            probability = float(result.output[row]) if usual else probabilities[row]
            yield self.explanation(item, targets[row], predictions[row], probability, result, row)

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
            partial(attribution.check_shapes, (inputs, *further)),
        )
        return maps(request).as_integral()

    def _attribution(self, names: tuple[str, ...]) -> LayerAttAttr:
        """Return one object for all batches of these inputs: what it learns of the model holds for all of them."""
        if names not in self._attributions:
            forward = self.texts.forward_function(names, self.output)

            def told(*tensors: Tensor) -> Tensor:
                self._told(len(tensors[0]))
                return forward(*tensors)

            self._attributions[names] = self.attribution_of(told)
        return self._attributions[names]

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
            label=texts.task.label(item, target),
            probability=probability,
            prediction=prediction,
            value=float(result.output[row]),
            note=texts.note,
            output=self.output,
            contrast=None if item.contrast is None else texts.task.label(item, item.contrast),
            contrast_target=item.contrast,
            attribution=self.settings.name,
            path=self.settings.path,
            baseline=self.settings.baseline,
            layers=numbers,
            task=texts.task.name,
            positions=texts.task.positions(item, target),
            total_delta=float(result.total_delta[row]),
            total_error=float(result.total_error[row]),
            total_nodes=int(result.total_nodes[row]),
        )

    def made(self, item: Encoded, **found: Any) -> Explanation:
        """Return the explanation of an example, of what was read and what was found."""
        return self.kind(
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
