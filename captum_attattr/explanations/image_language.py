"""Vision-language models: a picture and a prompt to inputs, and the next token of the answer as what is attributed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.image_model import EncodedImage, ImageModel, patch_names
from captum_attattr.explanations.images import Image, check_text
from captum_attattr.explanations.schemes import scheme_of
from captum_attattr.explanations.special_tokens import special_ids
from captum_attattr.explanations.text_model import most_tokens
from captum_attattr.model.attention_layers import family_name

_GRID = "image_grid_thw"
"""An input of Qwen2-VL and its like: the frames, rows and columns of patches of each picture."""


class ImageLanguageModel(ImageModel):
    """A model that answers in words to a picture and a prompt; the layers are those of its language model.

    The placeholders that the processor puts in the place of the picture are the patches.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor, model.config, model, language=True)
        if not callable(self.tokenizer):
            raise TypeError(f"processor must have a tokenizer, for prompts; {type(processor).__name__} has none")
        self.scheme = scheme_of(self.tokenizer)
        names = ("image_token_id", "image_token_index")
        found = (getattr(owner, name, None) for owner in (model.config, processor) for name in names)
        self.placeholder: Any = next((number for number in found if number is not None), None)
        if self.placeholder is None:
            raise UnsupportedModelError(f"{family_name(model)}: neither config nor processor has an image_token_id")
        # What stands for the picture in a prompt; Gemma 3 has another token there than in the ids.
        own = self.tokenizer.convert_ids_to_tokens([self.placeholder])[0]
        self.mark = str(getattr(processor, "image_token", None) or own)

    def check_text(self, index: int, text: Any) -> None:
        """Check that there is a prompt.

        Raises:
            TypeError, ValueError: there is none.
        """
        if text is None:
            raise ValueError(f"text: {type(self.model).__name__} answers to a picture and a prompt; give the prompt")
        check_text(index, text)

    def processed(self, index: int, image: Image, text: Any) -> dict[str, Tensor]:
        """Return the inputs of a picture and its prompt, the ids first.

        A prompt that has the image's placeholder is taken as it is. Others go through the processor's chat template,
        behind the picture, as a question that is to be answered; without a template the placeholder is put before them.
        """
        options: dict[str, Any] = {}
        if (count := text.count(self.mark)) > 1:
            raise ValueError(f"text of images[{index}] has {count} places for a picture, {self.mark!r}; one is needed")
        if not count and getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": text}]
            messages = [{"role": "user", "content": content}]
            text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        elif not count:
            text = self.mark + text
        if (begin := self.tokenizer.bos_token) and text.startswith(begin):
            options["add_special_tokens"] = False
        made = dict(self.processor(text=[text], images=[image.pixels], return_tensors="pt", **options))
        if _GRID in made and made["pixel_values"].dim() == 2:  # rows of patches, of all examples together
            made["pixel_values"] = made["pixel_values"][None]
        return {"input_ids": made.pop("input_ids"), **made}

    def told(self, image: Image, text: Any) -> tuple[str, str]:
        """Return the prompt; the answer names itself."""
        return text, ""

    def read_tokens(self, index: int, encoding: dict[str, Tensor]) -> EncodedImage:
        """Return an example whose tokens are the prompt's, patches in the place of the placeholders.

        Raises:
            UnsupportedModelError: there are not as many as the patches of one grid, or two pictures' worth.
        """
        ids, longest = encoding["input_ids"][0].tolist(), most_tokens(self.model.config, self.tokenizer)
        if len(ids) > longest:
            raise ValueError(f"images[{index}] and its text have {len(ids)} tokens and the model takes {longest}")
        patches = [i for i, token in enumerate(ids) if token == self.placeholder]
        whole = tuple(encoding[_GRID][0, 1:].tolist()) if _GRID in encoding else self.grid_of(encoding["pixel_values"])
        rows, columns = self._grid(index, whole, len(patches))
        tokens, special = self.tokenizer.convert_ids_to_tokens(ids), special_ids(self.tokenizer)
        for position, name in zip(patches, patch_names(rows, columns), strict=True):
            tokens[position] = name
        flags = [token in special and token != self.placeholder for token in ids]
        return EncodedImage(
            index, "", encoding, flags, [0] * len(ids), tokens=tokens, grid=(rows, columns), patches=patches
        )

    def _grid(self, index: int, whole: Sequence[int], count: int) -> tuple[int, int]:
        """Return the rows and columns of so many placeholders: those of the tower's patches, or of squares of them."""
        side = 1
        while side <= min(whole):
            rows, columns = (length // side for length in whole)
            if rows * columns == count:
                return rows, columns
            side += 1
        raise UnsupportedModelError(
            f"images[{index}] has {count} placeholders in the prompt, which are no grid of its {whole[0]} x {whole[1]} "
            "patches: where the processor cuts pictures into tiles, switch that off (do_image_splitting=False)"
        )

    def pixels_of(self, encoding: dict[str, Tensor]) -> Tensor:
        """Return the pixels of an example; those of Qwen2-VL and its like are put together out of their patches.

        Of these (1, patches, channels x frames x side x side), squares of `merge_size` patches follow each other row by
        row, and the patches in each so too; the frames of a picture are the same.
        """
        if _GRID not in encoding:
            return super().pixels_of(encoding)
        frames, rows, columns = encoding[_GRID][0].tolist()
        merge, (height, width) = self.eye.merge_size, self.patch_size
        shape = (rows // merge, columns // merge, merge, merge, 3, -1, height, width)
        if frames != 1:
            return encoding["pixel_values"]
        patches = encoding["pixel_values"][0].reshape(shape)[..., 0, :, :]  # of the first frame
        return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, rows * height, columns * width)

    def token_count(self, inputs: tuple[Tensor, ...]) -> int:
        """Return T of a batch of inputs, of which the first are the ids."""
        return int(inputs[0].shape[1])

    def output_of(self, inputs: dict[str, Tensor]) -> Any:
        """Return the output of the model for a batch of inputs; a picture of several rows runs once in the tower."""
        with _each_picture_once(self.model):
            return super().output_of(inputs)


@contextmanager
def _each_picture_once(model: Any) -> Iterator[None]:
    """Run the vision tower once for all rows of a picture, and without gradients.

    Nothing of it depends on the attention of the language model above.
    """
    found = [part for part in model.modules() if "get_image_features" in vars(type(part))]
    if not found:
        yield
        return
    core = found[-1]  # the outer ones call it
    original = core.get_image_features

    @functools.wraps(original)
    @torch.no_grad()
    def once(pixel_values: Tensor, *others: Any, **options: Any) -> Any:
        rows = [*others, *options.values()]
        if len(pixel_values) < 2 or any(isinstance(each, Tensor) for each in rows):
            return original(pixel_values, *others, **options)
        places, first = torch.full((len(pixel_values),), -1), list[int]()
        while len(left := (places < 0).nonzero()):
            first.append(int(left[0]))
            same = (pixel_values == pixel_values[first[-1]]).flatten(1).all(1)
            places[same.to(places.device)] = len(first) - 1
        features = original(pixel_values[first], *others, **options)
        if hasattr(features, "pooler_output"):
            features.pooler_output = _taken(features.pooler_output, places.tolist())
            return features
        return _taken(features, places.tolist())

    core.get_image_features = once
    try:
        yield
    finally:
        del core.get_image_features


def _taken(features: Any, places: list[int]) -> Any:
    """Return the features of the pictures at some places, in a tensor or a list with an entry for each."""
    return features[places] if isinstance(features, Tensor) else [features[place] for place in places]
