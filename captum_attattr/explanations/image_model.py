"""A model that sees and its processor: from pictures to inputs, patches, and the output that is attributed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.attributed_output import Outputs
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.images import Image, check_text
from captum_attattr.explanations.tasks.whole_text import WholeText
from captum_attattr.explanations.text_model import TextModel, device_of, most_tokens
from captum_attattr.model.attention_layers import attention_layers, every_layer, family_name, without_attention
from captum_attattr.model.families import TOKENS_BEFORE_PATCHES
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.wrappers import parameters_of
from captum_attattr.runs.memory import out_of_memory


@dataclass
class EncodedImage(Encoded):
    """One picture as the model takes it.

    Attributes:
        tokens: (T,) names of the patches and the other tokens.
        picture, grid, patches: as in `ImageExplanation`.
        label: what the target is called, where each picture has a text of its own; "" elsewhere.
    """

    tokens: list[str] = field(default_factory=list)
    picture: Tensor = field(default_factory=lambda: torch.empty(0))
    grid: tuple[int, int] = (0, 0)
    patches: list[int] = field(default_factory=list)
    label: str = ""

    @property
    def length(self) -> int:
        """T."""
        return len(self.tokens)


class ImageModel(TextModel):
    """A classifier of pictures, and what it shares with other models that see.

    Args:
        model: the model.
        processor: its processor of images, or one that has such a one and a tokenizer.

    Attributes:
        tower: the part whose attention is attributed.
        others as in `TextModel`.

    Raises:
        TypeError: no such processor.
        UnsupportedModelError: the attention cannot be read.
    """

    def __init__(self, model: Any, processor: Any, config: Any, tower: Any, language: bool = False) -> None:
        self.processor = processor
        self.eye = getattr(processor, "image_processor", processor)
        self.task_name = "next_token" if language else "classification"
        Outputs.__init__(self, config, getattr(processor, "tokenizer", None), self.task_name, device_of(model))
        self.task = WholeText(self)
        self.model, self.tower, self.kind = model, tower, None
        self.layers = attention_layers(tower)
        every = every_layer(tower)
        self.depth, self.note, self.scheme = len(every), without_attention(every), "words"
        parameters = parameters_of(model)
        self._accepted: set[str] = set(parameters) - {"labels"}  # which some processors make
        self.extra = {
            n: v for n, v in {"use_cache": False, "logits_to_keep": 1}.items() if language and n in parameters
        }

    # ------------------------------------------------------------------------------------------ pictures to inputs

    def encode_image(self, index: int, image: Image, text: Any, target: Any, contrast: Any) -> EncodedImage:
        """Return one picture as the model takes it.

        Args:
            index: of the picture in its list, for the errors.
            image: the picture.
            text: what goes with it.
            target, contrast: as in `explain_images`.

        Raises:
            TypeError, ValueError: a target or text that the model does not have or take.
            UnsupportedModelError: the processor makes no picture of patches of it.
        """
        self.check_text(index, text)
        first, second = self.contrasted(index, target, contrast)
        with torch.device("cpu"):  # whatever torch's default is
            encoding = {n: t for n, t in self.processed(index, image, text).items() if n in self._accepted}
        item = self.read_tokens(index, encoding)
        item.text, item.label = self.told(image, text)
        item.picture = self.seen(index, encoding)
        item.target, item.contrast = first, second
        return item

    def check_text(self, index: int, text: Any) -> None:
        """Check the text that was given with a picture.

        Raises:
            ValueError: a classifier takes none.
        """
        if text is not None:
            raise ValueError(f"text: {type(self.model).__name__} takes pictures alone; leave it out")

    def processed(self, index: int, image: Image, text: Any) -> dict[str, Tensor]:
        """Return the inputs that the processor makes."""
        return dict(self.eye(images=[image.pixels], return_tensors="pt"))

    def told(self, image: Image, text: Any) -> tuple[str, str]:
        """Return the text of the explanation, and what its target is called if the text says that."""
        return image.name, ""

    def seen(self, index: int, encoding: dict[str, Tensor]) -> Tensor:
        """Return the picture that the model sees as (H, W, 3) uint8: what the processor normalised, as it was before.

        What is left at the right and at the bottom beside the last whole patch, no model sees.

        Raises:
            UnsupportedModelError: it is no single picture.
        """
        pixels = self.pixels_of(encoding)
        if pixels.dim() != 4 or pixels.shape[:2] != (1, 3):
            raise UnsupportedModelError(
                f"the processor makes pixels of shape {tuple(pixels.shape)} of images[{index}], and not one picture "
                "(1, 3, height, width): where it cuts pictures into tiles, switch that off (do_image_splitting=False)"
            )
        height, width = self.patch_size
        rows, columns = pixels.shape[-2] // height, pixels.shape[-1] // width
        values = pixels[0, :, : rows * height, : columns * width].detach().float().cpu()
        if getattr(self.eye, "do_normalize", False):
            mean, std = (values.new_tensor(getattr(self.eye, f"image_{name}")) for name in ("mean", "std"))
            values = values * std.reshape(-1, 1, 1) + mean.reshape(-1, 1, 1)
        if getattr(self.eye, "do_rescale", True):
            values = values / (getattr(self.eye, "rescale_factor", None) or 1 / 255)
        return values.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()

    def pixels_of(self, encoding: dict[str, Tensor]) -> Tensor:
        """Return the pixels of an example, (1, 3, H, W) where it has one picture in one piece."""
        pixels = encoding["pixel_values"]
        while pixels.dim() > 4 and pixels.shape[1] == 1:  # pictures of an example, tiles of a picture
            pixels = pixels[:, 0]
        return pixels

    def read_tokens(self, index: int, encoding: dict[str, Tensor]) -> EncodedImage:
        """Return an example whose tokens are the patches of its pixels, behind the tower's special tokens."""
        before, (rows, columns) = self.special_names, self.grid_of(encoding["pixel_values"])
        tokens = [*before, *patch_names(rows, columns)]
        return EncodedImage(
            index,
            "",
            encoding,
            [i < len(before) for i in range(len(tokens))],
            [0] * len(tokens),
            tokens=tokens,
            grid=(rows, columns),
            patches=list(range(len(before), len(tokens))),
        )

    @property
    def special_names(self) -> list[str]:
        """The names of the tokens before the patches: [CLS], [DIST], [REG1] ..."""
        names: list[str] = []
        parts = {name.rpartition(".")[2]: value for name, value in self.tower.named_parameters()}
        for parameter, name in TOKENS_BEFORE_PATCHES.items():
            if (value := parts.get(parameter)) is not None:
                count = value.shape[-2] if value.dim() > 1 else 1
                names += [name] if name != "REG" else [f"[REG{i + 1}]" for i in range(count)]
        return names

    @property
    def patch_size(self) -> tuple[int, int]:
        """The height and width of a patch, in pixels.

        Raises:
            UnsupportedModelError: the config does not say them.
        """
        config: Any = self.tower.config
        size = getattr(getattr(config, "vision_config", config), "patch_size", None)
        height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
        if not isinstance(height, int) or not isinstance(width, int):
            raise UnsupportedModelError(f"{family_name(self.model)} does not cut pictures into one grid of patches")
        return height, width

    def grid_of(self, pixels: Tensor) -> tuple[int, int]:
        """Return the rows and columns of patches that pixels (..., H, W) are cut into."""
        height, width = self.patch_size
        return pixels.shape[-2] // height, pixels.shape[-1] // width

    # ------------------------------------------------------------------------------------------ inputs to outputs

    def check_sizes(self, items: Sequence[Encoded]) -> None:
        """Check that the model takes pictures of these sizes, each of which runs once.

        Raises:
            ValueError: it does not, or the processor makes other sizes than it should.
        """
        sizes = {item.encoding["pixel_values"].shape: item for item in reversed(items)}
        for size, item in sizes.items():
            try:
                with evaluation_mode(self.model), torch.no_grad():
                    self.output_of(self.inputs([item]))
            except (RuntimeError, ValueError) as error:
                if out_of_memory(error):
                    raise
                raise ValueError(
                    f"images[{item.index}]: {family_name(self.model)} does not take pixels of shape {tuple(size)}, "
                    f"which the processor makes of it: {error}"
                ) from error

    def token_count(self, inputs: tuple[Tensor, ...]) -> int:
        """Return T of a batch of inputs, of which the first are the pixels."""
        return len(self.special_names) + math.prod(self.grid_of(inputs[0]))

    def inputs(self, items: Iterable[Encoded]) -> dict[str, Tensor]:
        """Return the model's arguments for pictures of one form, on the model's device."""
        encodings = [item.encoding for item in items]
        batch = {name: torch.cat([encoding[name] for encoding in encodings]) for name in encodings[0]}
        dtype = next(self.model.parameters()).dtype
        return {
            name: tensor.to(self.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
        }


class ImageTextModel(ImageModel):
    """A model that compares pictures with texts, as CLIP and SigLIP do.

    F is the cosine similarity where there is one text; of several candidates, the model's own logits of the picture and
    what it makes of them: softmax, of SigLIP sigmoid.
    """

    def __init__(self, model: Any, processor: Any, candidates: Sequence[str] | None = None) -> None:
        super().__init__(model, processor, SimpleNamespace(), model.vision_model)
        self._accepted |= {"input_ids", "attention_mask"}
        self.candidates = candidates
        self._classes(candidates or [""])
        if not callable(self.tokenizer):
            raise TypeError(f"processor must have a tokenizer, for texts; {type(processor).__name__} has none")

    def _classes(self, names: Sequence[str]) -> None:
        several = "multi_label_classification" if hasattr(self.model, "logit_bias") else None
        self.config.num_labels, self.config.id2label = len(names), dict(enumerate(names))
        self.config.problem_type = several if len(names) > 1 else "regression"

    def meet(self, explanation: Any) -> None:
        """Take as many candidates as an explained example has."""
        if explanation.inputs is not None and "input_ids" in explanation.inputs:
            count = explanation.inputs["input_ids"].shape[1]
            self._classes([str(i) for i in range(count)])

    def chosen_output(self, output: str | None, contrasted: bool = False) -> str:
        """Return what F is called; of one text the similarity, under the name "score".

        Raises:
            ValueError: a similarity is asked for as something else, or contrasted.
        """
        if self.regression and (contrasted or output not in (None, "logit", "score")):
            given = "contrast" if contrasted else f"output={output!r}"
            raise ValueError(f"{given}: one text is a similarity and no class; give candidates, two or more")
        return super().chosen_output(output, contrasted)

    def check_text(self, index: int, text: Any) -> None:
        """Check that there is a text to compare with.

        Raises:
            TypeError, ValueError: there is none, or too much.
        """
        if (text is None) == (self.candidates is None):
            raise ValueError(
                f"{type(self.model).__name__} compares pictures with texts: give text, for the similarity with it, or "
                "candidates, for the choice among several" + "; not both" * (text is not None)
            )
        if text is not None:
            check_text(index, text)
        texts, longest = self.candidates or [text], most_tokens(self.model.config, self.tokenizer)
        for each, ids in zip(texts, self.tokenizer(texts, verbose=False)["input_ids"], strict=True):
            if len(ids) > longest:
                told = f"has {len(ids)} tokens and the model takes {longest}; shorten it"
                raise ValueError(f"the text {each!r:.60} {told}")

    def processed(self, index: int, image: Image, text: Any) -> dict[str, Tensor]:
        """Return the pixels, and the texts as (1, texts, tokens)."""
        texts = [text] if self.candidates is None else list(self.candidates)
        padding = "max_length" if hasattr(self.model, "logit_bias") else True  # SigLIP was trained so
        made = self.tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
        encoding = super().processed(index, image, text)
        return encoding | {n: made[n][None] for n in ("input_ids", "attention_mask") if n in made}

    def told(self, image: Image, text: Any) -> tuple[str, str]:
        """Return the text or the candidates, and the name of a single text."""
        return (text, text) if self.candidates is None else (" | ".join(self.candidates), "")

    def output_of(self, inputs: dict[str, Tensor]) -> Any:
        """Return `logits` as a model's output."""
        return SimpleNamespace(logits=self.logits(inputs))

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return (B, texts): the similarity with the one text, or the model's logits of several; float32."""
        image = _pooled(self.model.get_image_features(pixel_values=inputs["pixel_values"]))
        text = self._text_features(inputs)
        image, text = (value / value.norm(dim=-1, keepdim=True) for value in (image, text))
        similarity = torch.einsum("bd,bcd->bc", image, text)
        if similarity.shape[1] == 1:
            return similarity.float()
        scaled: Tensor = similarity * self.model.logit_scale.exp() + getattr(self.model, "logit_bias", 0)
        return scaled.float()

    @torch.no_grad()
    def _text_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return (B, texts, D); a text that several rows have is run once."""
        names = [name for name in ("input_ids", "attention_mask") if name in inputs]
        rows = torch.stack([inputs[name] for name in names], -1)
        different, places = torch.unique(rows.flatten(0, 1), dim=0, return_inverse=True)
        features = _pooled(self.model.get_text_features(**{n: different[..., i] for i, n in enumerate(names)}))
        return features[places].reshape(*rows.shape[:2], -1)


def _pooled(features: Any) -> Tensor:
    """Return the features of a tower, which newer releases wrap."""
    pooled: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return pooled


def patch_names(rows: int, columns: int) -> list[str]:
    """Return the names of patches, row by row."""
    return [f"patch {row},{column}" for row in range(rows) for column in range(columns)]


@contextmanager
def naming_images() -> Any:
    """Name pictures in errors about targets, which speak of texts."""
    try:
        yield
    except (TypeError, ValueError) as error:
        told = re.sub(
            r"\btexts(?=\[)|(?<=entries for )(\d+) texts", lambda m: f"{m[1]} images" if m[1] else "images", str(error)
        )
        if told == str(error):
            raise
        raise type(error)(told) from None
