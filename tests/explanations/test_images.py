"""explain_images: F is the model's own output, maps are LayerAttAttr's, patches are where they are in the picture."""

from __future__ import annotations

from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import seeing
import torch
from device import place
from seeing import (
    CLASSIFIERS,
    SIZE,
    classifier,
    clip,
    gemma3,
    idefics3,
    llava,
    paligemma,
    pictures,
    processor,
    qwen2,
    siglip,
)
from tokenizers.processors import TemplateProcessing
from toy import tiny_bert, tiny_tokenizer, unchanged
from transformers import CLIPProcessor

from captum_attattr import (
    Explanation,
    ImageExplanation,
    LayerAttAttr,
    UnsupportedModelError,
    attention_layers,
    attribution_tree,
    explain,
    explain_images,
    faithfulness,
    removal_effects,
)
from captum_attattr.explanations.explainer import Explainer

QUIET = {"progress": False}
QUICK = {"n_steps": 2, "progress": False}


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=0, atol=1e-5, check_dtype=False)


def before_attention(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """What the first layer of attention gets."""
    seen: list[torch.Tensor] = []
    block = attention_layers(model)[0].parent
    hook = block.register_forward_pre_hook(lambda _, a, k: seen.append((*a, *k.values())[0]), with_kwargs=True)
    model(**inputs)
    hook.remove()
    return seen[0]


# ------------------------------------------------------------------------------------------------- classifiers


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_f_is_the_models_own_output_and_each_patch_is_where_it_is_named(name: str) -> None:
    model = classifier(name)
    found = explain_images(model, processor(), pictures(), **QUICK)
    before = CLASSIFIERS[name][1]
    names = [f"patch {row},{column}" for row in range(3) for column in range(3)]
    for explanation in found:
        assert explanation.tokens == [*before, *names]
        assert explanation.special == [True] * len(before) + [False] * 9
        logits = model(**explanation.inputs).logits[0].detach()
        close(explanation.value, logits.softmax(-1)[explanation.prediction])
        assert explanation.prediction == explanation.target == int(logits.argmax())
        # Other pixels in one patch change that token before the first layer of attention, and no other one.
        pixels = explanation.inputs["pixel_values"]
        changed = pixels.clone()
        changed[..., 4:8, 8:12] += 1  # row 1, column 2
        seen = [before_attention(model, pixel_values=each) for each in (pixels, changed)]
        other = (seen[0] != seen[1]).any(-1)[0].nonzero().flatten().tolist()
        assert [explanation.tokens[i] for i in other] == ["patch 1,2"]


def test_maps_are_those_of_a_forward_function_of_ones_own() -> None:
    model, images = classifier(), pictures()
    found = explain_images(model, processor(), images, target=1)
    pixels = processor()(images=images, return_tensors="pt")["pixel_values"]
    lattr = LayerAttAttr(lambda x: model(x).logits.softmax(-1), attention_layers(model))
    maps = torch.stack(lattr.attribute(pixels, target=1), 1)
    for explanation, expected in zip(found, maps, strict=True):
        close(explanation.attributions, expected)
        assert float(explanation.delta.abs().max()) < 1e-4
        close(explanation.patch_scores(), explanation.token_scores()[1:].reshape(3, 3))


def test_a_batch_is_its_pictures_one_by_one_whatever_their_sizes() -> None:
    model = classifier("Dinov2ForImageClassification")  # which takes any size
    keeping = processor(do_resize=False)
    images = [*pictures(2, 12, 16), *pictures(1, 8, 8), *pictures(1, 16, 12)]
    together = explain_images(model, keeping, images, **QUIET)
    assert [explanation.grid for explanation in together] == [(3, 4), (3, 4), (2, 2), (4, 3)]
    for image, explanation in zip(images, together, strict=True):
        alone = explain_images(model, keeping, [image], **QUIET)[0]
        close(alone.attributions, explanation.attributions)
        close(alone.value, explanation.value)
        assert torch.equal(explanation.picture, torch.from_numpy(image))  # nothing was resized


def test_the_picture_ends_where_the_last_whole_patch_does() -> None:
    model, image = classifier("Dinov2ForImageClassification"), pictures(1, 19, 15)[0]
    explanation = explain_images(model, processor(do_resize=False), image, **QUICK)[0]
    assert explanation.grid == (4, 3)
    assert torch.equal(explanation.picture, torch.from_numpy(image[:16, :12]))
    pixels = explanation.inputs["pixel_values"].clone()
    pixels[..., 16:, :], pixels[..., 12:] = 9, 9
    close(model(pixel_values=pixels).logits.softmax(-1)[0, explanation.target].detach(), explanation.value)


def test_the_picture_is_what_the_model_saw() -> None:
    image = np.zeros((24, 36, 3), np.uint8)
    image[:, 12:24, 0] = 200  # the middle third is red
    usual = processor(image_mean=[0.2, 0.5, 0.7], image_std=[0.3, 0.2, 0.1], resample=0)
    picture = explain_images(classifier(), usual, image, **QUICK)[0].picture
    expected = torch.zeros(12, 12, 3, dtype=torch.uint8)
    expected[:, 4:8, 0] = 200
    assert torch.equal(picture, expected)
    for options in ({"do_normalize": False}, {"do_normalize": False, "do_rescale": False}):
        assert torch.equal(
            explain_images(classifier(), processor(resample=0, **options), image, **QUICK)[0].picture, expected
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"output": "logit"}, lambda logits: logits[1]),
        ({"output": "log_probability"}, lambda logits: logits.log_softmax(-1)[1]),
        ({"output": "logit", "contrast": "LABEL_2"}, lambda logits: logits[1] - logits[2]),
        ({"path": "joint", "baseline": "sink"}, lambda logits: logits.softmax(-1)[1]),
        ({"layers": [1, 2], "attention": False, "dtype": "float16"}, lambda logits: logits.softmax(-1)[1]),
        *(
            ({"attribution": name}, lambda logits: logits.softmax(-1)[1])
            for name in ("attention", "alti", "chefer", "rollout", "attnlrp", "gradient_attention")
        ),
    ],
)
def test_options_are_explains(options: dict[str, Any], expected: Any) -> None:
    model = classifier()
    explanation = explain_images(model, processor(), pictures(1), target="LABEL_1", **QUIET | options)[0]
    close(explanation.value, expected(model(**explanation.inputs).logits[0].detach()))
    assert explanation.label == "LABEL_1"
    for name in ("path", "baseline"):
        assert getattr(explanation, name) == options.get(name, getattr(explanation, name))
    assert explanation.patch_scores().shape == (3, 3)
    kept = options.get("attention", options.get("attribution") not in ("alti", "chefer", "rollout"))
    assert (explanation.attention is not None) == kept
    assert len(explanation.attributions) == len(explanation.layers)


# ------------------------------------------------------------------------------------------ pictures and texts


def test_the_similarity_with_a_text_is_f() -> None:
    model, both = clip()
    texts = ["good film", "a bad plot man", "good film"]
    found = explain_images(model, both, pictures(3), text=texts)
    for explanation, text in zip(found, texts, strict=True):
        assert (explanation.label, explanation.text, explanation.output) == (text, text, "score")
        ids = both.tokenizer(text, return_tensors="pt")["input_ids"]
        whole = model(pixel_values=explanation.inputs["pixel_values"], input_ids=ids)
        close(explanation.value, (whole.image_embeds @ whole.text_embeds.T).item())
        assert explanation.tokens[:2] == ["[CLS]", "patch 0,0"]
        assert len(explanation.layers) == 3
    one = explain_images(model, both, pictures(3)[1], text=texts[1])[0]
    close(one.attributions, found[1].attributions)
    text_features = whole.text_embeds.detach()  # of the third, by a forward function of one's own

    def similarity(pixels: torch.Tensor) -> torch.Tensor:
        embeds = model(pixel_values=pixels, input_ids=ids).image_embeds
        return embeds @ text_features.T

    lattr = LayerAttAttr(similarity, attention_layers(model.vision_model))
    maps = torch.cat(lattr.attribute(found[2].inputs["pixel_values"], target=0))
    close(found[2].attributions, maps)


@pytest.mark.parametrize(("made", "chosen"), [(clip, "softmax"), (siglip, "sigmoid")])
def test_a_choice_among_candidates_is_the_models_own(made: Any, chosen: str) -> None:
    model, both = made()
    texts = ["good film", "a bad plot man", "work"]
    options = {"padding": "max_length" if made is siglip else True, "return_tensors": "pt"}
    encoded = both.tokenizer(texts, **options)
    names = ("input_ids", "attention_mask")
    for explanation in explain_images(model, both, pictures(), candidates=texts, **QUICK):
        whole = model(pixel_values=explanation.inputs["pixel_values"], **{n: encoded[n] for n in names})
        logits = whole.logits_per_image[0].detach()
        expected = logits.softmax(-1) if chosen == "softmax" else logits.sigmoid()
        assert explanation.target == int(logits.argmax())
        close(explanation.value, expected[explanation.target])
        assert explanation.label == texts[explanation.target]
    found = explain_images(
        model, both, pictures(), target="work", contrast=[0, 1], output="logit", candidates=texts, **QUICK
    )
    for explanation, other in zip(found, (0, 1), strict=True):
        logits = model(
            pixel_values=explanation.inputs["pixel_values"], **{n: encoded[n] for n in names}
        ).logits_per_image[0]
        close(explanation.value, (logits[2] - logits[other]).detach())
        assert explanation.contrast == texts[other]


# ------------------------------------------------------------------------------------------ pictures and prompts

ANSWERING = {
    "llava": (llava, (3, 3)),
    "paligemma": (paligemma, (3, 3)),
    "idefics3": (idefics3, (2, 2)),
    "gemma3": (gemma3, (2, 2)),
    "qwen2": (qwen2, (4, 2)),
}
"""And the grid of pictures of 30 x 20 pixels."""


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", ANSWERING)
def test_the_next_token_of_an_answer_is_the_models_own(name: str) -> None:
    make, (rows, columns) = ANSWERING[name]
    model, both = make()
    texts = ["a good film", "work bad plot man"]
    explain_images(model, both, pictures(), text=texts, **QUICK)  # transformers puts hooks of its own there at first
    with unchanged(model):
        found = explain_images(model, both, pictures(), text=texts)
    names = [f"patch {row},{column}" for row in range(rows) for column in range(columns)]
    for explanation, text in zip(found, texts, strict=True):
        logits = model(**explanation.inputs).logits[0, -1].detach()
        close(explanation.value, logits.softmax(-1)[explanation.target])
        assert explanation.target == explanation.prediction == int(logits.argmax())
        assert [explanation.tokens[i] for i in explanation.patches] == names
        assert (explanation.text, explanation.grid) == (text, (rows, columns))
        assert [word for word in explanation.tokens if word in text.split()] == text.split()
        assert not any(explanation.special[i] for i in explanation.patches)
        assert any(explanation.special)
        one = explain_images(model, both, pictures()[texts.index(text)], text=text)[0]
        close(one.attributions, explanation.attributions)
    last, names = found[1], list(found[1].inputs)

    def forward(*tensors: torch.Tensor) -> torch.Tensor:
        return model(**dict(zip(names, tensors, strict=True))).logits[:, -1].softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(model))
    first, *more = last.inputs.values()
    close(last.attributions, torch.cat(lattr.attribute(first, target=last.target, additional_forward_args=tuple(more))))
    contrasted = explain_images(
        model, both, pictures(1), text="a b", target="film", contrast="plot", output="logit", **QUICK
    )[0]
    logits = model(**contrasted.inputs).logits[0, -1].detach()
    ids = both.tokenizer.convert_tokens_to_ids(["film", "plot"])
    close(contrasted.value, logits[ids[0]] - logits[ids[1]])
    assert (contrasted.label, contrasted.contrast) == ("film", "plot")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", ANSWERING)
def test_each_placeholder_is_named_by_its_place_in_the_picture(name: str) -> None:
    make, (rows, _) = ANSWERING[name]
    model, both = make()
    with torch.no_grad():  # patches of the tower see nothing of each other
        for part, parameter in model.named_parameters():
            if "vis" in part and ("v_proj" in part or "attn.proj" in part):
                parameter.zero_()
    side = 12 if rows == 3 else 16  # which the processor leaves as it is
    image = pictures(1, side, side)[0]
    other = image.copy()
    other[4:8, 8:12] = 255 - other[4:8, 8:12]
    one, two = explain_images(model, both, [image, other], text="a b", **QUICK)
    assert torch.equal(one.picture, torch.from_numpy(image))
    seen = [before_attention(model, **explanation.inputs) for explanation in (one, two)]
    different = (seen[0] != seen[1]).any(-1)[0].nonzero().flatten().tolist()
    assert [one.tokens[i] for i in different] == ["patch 1,2" if rows == 3 else "patch 0,1"]


TEMPLATE = """
{%- for message in messages %}{% for part in message['content'] -%}
{% if part['type'] == 'image' %}<image> a {% else %}{{ part['text'] }} z{% endif %}
{%- endfor %}{% endfor %}"""


def test_prompts_go_through_the_chat_template_unless_they_have_the_placeholder() -> None:
    model, both = llava()
    tokens = {}
    for template in (None, TEMPLATE):
        both.chat_template = template
        for text in ("good film", "good <image> film"):
            explanation = explain_images(model, both, pictures(1), text=text, **QUICK)[0]
            words = [t for i, t in enumerate(explanation.tokens) if i not in explanation.patches]
            tokens[template is not None, text] = words[1:-1]
            assert len(explanation.patches) == 9
            assert explanation.text == text
    both.chat_template = "[CLS]" + TEMPLATE.replace("-%}", "%}", 1)  # which begins as the tokenizer would
    again = explain_images(model, both, pictures(1), text="good film", **QUICK)[0]
    assert [again.tokens[i] for i in range(len(again.tokens)) if i not in again.patches] == [
        "[CLS]",
        *["a", "good", "film", "z"],
    ]
    assert tokens[False, "good film"] == ["good", "film"]
    assert tokens[True, "good film"] == ["a", "good", "film", "z"]
    assert tokens[False, "good <image> film"] == tokens[True, "good <image> film"] == ["good", "film"]


TURNS = """
{%- for message in messages %}{% if message['role'] == 'assistant' %} plot {% else %} work {% endif -%}
{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }} {% endif -%}
{% endfor %}{% endfor %}{% if add_generation_prompt %} plot {% endif %}"""


def asked(*messages: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in messages]


def test_an_answer_is_gone_on_with_token_by_token() -> None:
    """A conversation that ends with the assistant's words: each token of an answer behind the first."""
    model, both = llava()
    both.chat_template = TURNS
    both.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")  # no token behind the text
    picture, answer = pictures(1), ["man", "b", "film"]
    parts = [{"type": "text", "text": "good"}, {"type": "image"}]
    for i, word in enumerate(answer):
        begun = asked(("user", "good"), *([("assistant", " ".join(answer[:i]))] if i else []))
        one = explain_images(model, both, picture, word, text=begun, **QUICK)[0]
        words = [token for j, token in enumerate(one.tokens) if j not in one.patches]
        assert words == ["work", "good", "plot", *answer[:i]]
        with torch.no_grad():
            likely = model(**place(one.inputs)).logits[0, -1].softmax(-1)
        assert one.label == word
        assert one.value == pytest.approx(float(likely[one.target]), abs=1e-5)
    assert one.text == "user: good\nassistant: man b"
    plain = explain_images(model, both, picture, text="good", **QUICK)[0]
    same = explain_images(model, both, picture, text=[asked(("user", "good"))], **QUICK)[0]
    assert torch.equal(same.attributions, plain.attributions)
    behind = explain_images(model, both, picture, text=asked(("system", "bad"), ("user", parts)), **QUICK)[0]
    assert [behind.tokens[i] for i in (0, 1, 2, 3, -1)] == ["work", "bad", "work", "good", "plot"]
    assert behind.patches == list(range(4, 13))


def test_the_vision_tower_runs_each_picture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, both = llava()
    counts: list[int] = []
    model.model.vision_tower.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    found = explain_images(model, both, pictures(2), text="a good film", n_steps=8, progress=False)
    assert max(counts) <= 2
    assert found[0].total_nodes > 0
    monkeypatch.setattr("captum_attattr.explanations.image_language._each_picture_once", lambda _: nullcontext())
    counts.clear()
    again = explain_images(model, both, pictures(2), text="a good film", n_steps=8, progress=False)
    assert max(counts) > 2
    for one, other in zip(found, again, strict=True):
        close(one.attributions, other.attributions)


# ---------------------------------------------------------------------------------------- what is built on maps


@pytest.mark.parametrize("made", ["classifier", "similarity", "candidates", "answer"])
def test_files_trees_removal_and_faithfulness_work_on_them(tmp_path: Path, made: str) -> None:
    model, reading, options = classifier(), processor(), {}
    if made != "classifier":
        model, reading = llava() if made == "answer" else clip()
        options = {"candidates": ["good film", "bad", "a b c"]} if made == "candidates" else {"text": "good film"}
    found = explain_images(model, reading, pictures(), **options, **QUIET)
    explanation = found[0]
    loaded = Explanation.load(explanation.save(tmp_path / "image.safetensors"))
    assert isinstance(loaded, ImageExplanation)
    assert (loaded.grid, loaded.patches, loaded.tokens) == (explanation.grid, explanation.patches, explanation.tokens)
    assert torch.equal(loaded.picture, explanation.picture)
    assert torch.equal(loaded.attributions, explanation.attributions)
    tree = attribution_tree(loaded, threshold=0.01)
    assert tree.number_of_edges() > 0
    effects = removal_effects(model, reading, loaded, top=5)
    assert effects.value == pytest.approx(explanation.value, abs=1e-6)
    edge = effects.edges[0]
    layer = attention_layers(getattr(model, "vision_model", model))[edge.layer]
    lattr = LayerAttAttr(lambda *_: 0, layer)
    assert lattr.layers[0].index == edge.layer
    alone = removal_effects(model, reading, explanation, [edge])
    close(alone.effects, effects.effects[:1])
    measured = faithfulness(model, reading, found, unit="token", **QUIET)
    assert measured.keep.shape == (2, 10)
    close(measured.full, torch.tensor([each.value for each in found], dtype=torch.float64))
    with pytest.raises(ValueError, match="removal='replace' puts other tokens in a text, and this is a picture"):
        faithfulness(model, reading, found, unit="token", removal="replace", **QUIET)


def test_the_model_is_left_as_it_was_and_training_mode_is_put_back() -> None:
    model = classifier(hidden_dropout_prob=0.5).train()
    with unchanged(model):
        found = explain_images(model, processor(), pictures(1), **QUICK)[0]
    assert model.training
    close(found.value, explain_images(model.eval(), processor(), pictures(1), **QUICK)[0].value)


# -------------------------------------------------------------------------------------------------- what comes in


def test_pictures_of_all_kinds_are_read_alike(tmp_path: Path) -> None:
    array = pictures(1)[0]
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    image = PIL.Image.fromarray(array)
    image.save(tmp_path / "noise.png")
    turned = PIL.Image.fromarray(np.rot90(array).copy())  # a camera held upright: its file says how to turn
    turned.save(tmp_path / "turned.png", exif=_turned(turned, 6))
    kinds = [
        array,
        tensor,
        tensor / 255,
        image,
        image.convert("RGBA"),
        tmp_path / "noise.png",
        str(tmp_path / "noise.png"),
    ]
    kinds.append(tmp_path / "turned.png")
    model = classifier()
    found = explain_images(model, processor(), iter(kinds), **QUICK)
    for explanation in found:
        assert torch.equal(explanation.picture, found[0].picture)
    assert [each.text for each in found] == ["picture of 20 x 30 pixels"] * 5 + ["noise.png"] * 2 + ["turned.png"]
    for kind in kinds:
        assert len(explain_images(model, processor(), kind, **QUICK)) == 1
    grey = explain_images(model, processor(), image.convert("L"), **QUICK)[0].picture
    assert torch.equal(grey[..., 0], grey[..., 2])


def _turned(image: Any, orientation: int) -> Any:
    exif = image.getexif()
    exif[0x0112] = orientation
    return exif


GOOD = np.zeros((8, 8, 3), np.uint8)
BAD: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, r"images is empty: give at least one"),
    (None, TypeError, r"images must be a picture or a list of pictures, not NoneType: None"),
    (7, TypeError, r"images must be a picture or a list of pictures, not int: 7"),
    ({"a": GOOD}, TypeError, r"images must be a picture or a list of pictures, not dict"),
    (b"png", TypeError, r"images must be a picture or a list of pictures, not bytes: b'png'"),
    (np.zeros((2, 8, 8, 3), np.uint8), TypeError, r"not ndarray of shape \(2, 8, 8, 3\); use list\(images\)"),
    (torch.zeros(2, 3, 8, 8), TypeError, r"not Tensor of shape \(2, 3, 8, 8\); use list\(images\)"),
    ([GOOD, 3], TypeError, r"images\[1\] must be a PIL image, an array \(height, width, 3\) of uint8, .* not int: 3"),
    ([GOOD, None], TypeError, r"images\[1\] must be a PIL image.* not NoneType: None"),
    ([[GOOD]], TypeError, r"images\[0\] must be a PIL image.* not list"),
    (np.zeros((8, 8), np.uint8), ValueError, r"not an array \(8, 8\) of uint8; of a grey one use np.stack"),
    (np.zeros((3, 8, 8), np.uint8), ValueError, r"not an array \(3, 8, 8\) of uint8; use image.transpose\(1, 2, 0\)"),
    (np.zeros((8, 8, 3)), ValueError, r"of float64; of numbers from 0 to 1 use \(255 \* image\)"),
    (np.zeros((8, 8, 3), np.int64), ValueError, r"not an array \(8, 8, 3\) of int64$"),
    (np.zeros((8, 8, 4), np.uint8), ValueError, r"not an array \(8, 8, 4\) of uint8$"),
    (torch.zeros(8, 8, 3), ValueError, r"not a tensor \(8, 8, 3\) of float32; use image.permute\(2, 0, 1\)"),
    (torch.zeros(1, 8, 8), ValueError, r"not a tensor \(1, 8, 8\) of float32$"),
    (torch.zeros(3, 8, 8, dtype=torch.int64), ValueError, r"not a tensor \(3, 8, 8\) of int64$"),
    (torch.full((3, 8, 8), 1.5), ValueError, r"images\[0\] has values from 1.5 to 1.5: floats must be from 0 to 1"),
    (torch.full((3, 8, 8), torch.nan), ValueError, r"images\[0\] has values from nan to nan"),
    (torch.zeros(3, 0, 8), ValueError, r"images\[0\] has no pixels: it is 8 x 0"),
    (PIL.Image.fromarray(np.full((8, 8), 60_000, np.uint16)), ValueError, r"mode 'I;16', from 6e\+04 to 6e\+04, which"),
    ([GOOD, PIL.Image.fromarray(np.ones((8, 8), np.float32))], ValueError, r"images\[1\] has pixels of the mode 'F'"),
    (BytesIO(b"x"), TypeError, r"images must be a picture or a list of pictures, not BytesIO"),
    ("nowhere.png", FileNotFoundError, r"images\[0\]: no file 'nowhere.png'"),
    (["https://example.org/cat.png"], ValueError, r"is an address: nothing is downloaded; give a file"),
    ([__file__], ValueError, r"images\[0\]: '.*test_images.py' cannot be read as a picture"),
]


@pytest.mark.parametrize(("images", "error", "message"), BAD)
def test_bad_pictures_are_refused_before_the_model_runs(images: Any, error: type[Exception], message: str) -> None:
    model = classifier()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        explain_images(model, processor(), images, **QUICK)


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("ViT", {"target": 3}, ValueError, r"target 3 of images\[0\] is out of range: the model has 3"),
    ("ViT", {"target": "cat"}, ValueError, r"target 'cat' of images\[0\] is unknown; the model has \['LABEL_0', "),
    ("ViT", {"target": [0, 1]}, ValueError, r"target lists 2 entries for 1 images"),
    ("ViT", {"target": 1, "contrast": 1}, ValueError, r"contrast 1 of images\[0\] is its target"),
    ("ViT", {"text": "a cat"}, ValueError, r"text: ViTForImageClassification takes pictures alone; leave it out"),
    ("ViT", {"candidates": ["a", "b"]}, ValueError, r"candidates are texts to choose among, which ViTFor"),
    ("ViT", {"layers": [3]}, ValueError, r"layers\[0\] must be from 0 to 2, not 3"),
    ("ViT", {"output": "odds"}, ValueError, r"output='odds' is unknown"),
    ("ViT", {"processor": tiny_tokenizer()}, TypeError, r"processor must be the model's processor of images, got "),
    ("ViT", {"processor": None}, TypeError, r"processor must be the model's processor of images, got NoneType"),
    ("ViT", {"model": None}, TypeError, r"model must be a model of transformers that takes images, got NoneType"),
    ("ViT", {"model": tiny_bert()}, TypeError, r"expected a model for image classification.* got BertForSeq"),
    ("CLIP", {}, ValueError, r"CLIPModel compares pictures with texts: give text, for the similarity with it, or cand"),
    ("CLIP", {"text": "a", "candidates": ["a", "b"]}, ValueError, r"or candidates, .*; not both"),
    ("CLIP", {"text": ["a", "b"]}, ValueError, r"text lists 2 entries for 1 images"),
    ("CLIP", {"text": 3}, TypeError, r"text of images\[0\] must be a string, not int: 3"),
    ("CLIP", {"text": "  "}, ValueError, r"text of images\[0\] is empty"),
    ("CLIP", {"text": "\ud800"}, ValueError, r"text of images\[0\] = .* holds half a character"),
    ("CLIP", {"candidates": ["a", "\ud800"]}, ValueError, r"one of candidates = .* holds half a character"),
    ("CLIP", {"text": "a " * 63}, ValueError, r"the text 'a a .* has 65 tokens and the model takes 64; shorten it"),
    ("CLIP", {"candidates": ["b", "a " * 63]}, ValueError, r"the text 'a a .* has 65 tokens and the model takes 64"),
    ("CLIP", {"text": "a", "processor": CLIPProcessor}, TypeError, r"processor of images, got type"),
    ("CLIP", {"text": "a", "target": 1}, ValueError, r"target 1 of images\[0\] is out of range: the model has 1"),
    ("CLIP", {"text": "a", "contrast": "b"}, ValueError, r"contrast: one text is a similarity"),
    ("CLIP", {"text": "a", "output": "probability"}, ValueError, r"output='probability': one text is a similarity"),
    ("CLIP", {"candidates": "ab"}, TypeError, r"candidates must be a list of texts, not str: 'ab'"),
    ("CLIP", {"candidates": ["a"]}, ValueError, r"candidates must be two or more different texts, not \['a'\]"),
    ("CLIP", {"candidates": ["a", "a"]}, ValueError, r"candidates must be two or more different texts"),
    ("CLIP", {"candidates": ["a", 2]}, TypeError, r"candidates must be texts, not int: 2"),
    ("CLIP", {"candidates": ["a", "b"], "target": "c"}, ValueError, r"target 'c' of images\[0\] is unknown; the model"),
]


WRONG += [
    (
        "LLaVA",
        {},
        ValueError,
        r"text: LlavaForConditionalGeneration answers to a picture and a prompt; give",
    ),
    ("LLaVA", {"text": 3}, TypeError, r"text of images\[0\] must be a string, not int: 3"),
    ("LLaVA", {"text": "\ud800"}, ValueError, r"text of images\[0\] = .* holds half a character"),
    ("LLaVA", {"text": "a " * 60}, ValueError, r"images\[0\] and its text have 71 tokens and the model takes 64"),
    ("LLaVA", {"text": asked(("user", "a"))}, ValueError, r"is a conversation, and the processor has no chat template"),
    ("chat", {"text": asked(("user", 3))}, TypeError, r"message 0 of text of images\[0\] must be a dict with 'role'"),
    ("chat", {"text": [asked(("user", "a")), "b"]}, ValueError, r"text lists 2 entries for 1 images"),
    ("chat", {"text": asked(("user", " "))}, ValueError, r"text of images\[0\] is empty"),
    ("chat", {"text": asked(("user", "\ud800"))}, ValueError, r"text of images\[0\] = .* holds half a character"),
    ("chat", {"text": asked(("user", [{"text": 3}]))}, TypeError, r"a part of text of images\[0\] must be a string"),
    ("chat", {"text": asked(("user", [{"type": "image"}] * 2 + [{"text": "a"}]))}, ValueError, r"has 2 pictures; one"),
    ("chat", {"text": asked(("user", [{"text": "a"}, {"type": "x"}]))}, ValueError, r"chat template refuses text of"),
    ("LLaVA", {"text": ""}, ValueError, r"text of images\[0\] is empty: ''"),
    ("LLaVA", {"text": "<image> a <image>"}, ValueError, r"text of images\[0\] has 2 places for a picture"),
    ("LLaVA", {"text": "a", "target": "good film"}, ValueError, r"target 'good film' of images\[0\] is 2 tokens"),
    ("LLaVA", {"text": "a", "target": 60}, ValueError, r"target 60 of images\[0\] is out of range: the model has 60"),
    (
        "LLaVA",
        {"text": "a", "candidates": ["a", "b"]},
        ValueError,
        r"candidates are texts to choose among, which Llava",
    ),
    ("LLaVA", {"text": "a", "processor": processor()}, TypeError, r"processor must have a tokenizer, for prompts"),
]


@pytest.mark.parametrize(("kind", "given", "error", "message"), WRONG)
def test_wrong_choices_are_refused_before_the_model_runs(
    kind: str, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    kinds = {"CLIP": clip, "LLaVA": llava, "chat": llava, "ViT": lambda: (classifier(), processor())}
    model, reading = kinds[kind]()
    if kind == "chat":
        reading.chat_template = TURNS + "{{ raise_exception('no') }}"
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        explain_images(**{"model": model, "processor": reading, "images": GOOD} | given, **QUICK)


@pytest.mark.parametrize("name", ["ViTForImageClassification", "SiglipForImageClassification"])
@pytest.mark.parametrize("bad", [0, 1])
def test_sizes_that_the_model_does_not_take_are_refused_before_any_is_explained(
    bad: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Explainer, "run", lambda *_: pytest.fail("explained"))
    given = [GOOD if i == bad else np.zeros((12, 12, 3), np.uint8) for i in range(2)]
    message = rf"images\[{bad}\]: {name} .* does not take pixels of shape \(1, 3, 8, 8\), which the processor makes"
    with pytest.raises(ValueError, match=message):
        explain_images(classifier(name), processor(do_resize=False), given, **QUICK)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ResNetForImageClassification", {}, "has no attention layer"),
        ("Siglip2ForImageClassification", seeing.TOWERS, "takes rows of patches"),
        ("MobileViTForImageClassification", {"image_size": 32}, r"its attention has shape \(16, 4, 1, 1\)"),
    ],
)
def test_models_whose_attention_is_not_of_patches_are_refused(name: str, options: Any, message: str) -> None:
    model = seeing.build(name, **seeing.TINY | seeing.VISION | options)
    with pytest.raises(UnsupportedModelError, match=message):
        explain_images(model, processor(), GOOD, **QUICK)


@pytest.mark.parametrize("made", [classifier, lambda: clip()[0]])
def test_explain_says_where_pictures_go(made: Any) -> None:
    with pytest.raises(TypeError, match=r"; explain_images explains pictures$"):
        explain(made(), tiny_tokenizer(), ["a b"], **QUIET)


def test_pictures_in_tiles_are_refused() -> None:
    model, both = idefics3()
    both.image_processor.do_image_splitting, both.image_processor.size = True, {"longest_edge": 32}
    with pytest.raises(UnsupportedModelError, match=r"switch that off \(do_image_splitting=False\)"):
        explain_images(model, both, GOOD, text="a", **QUICK)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"picture": torch.zeros(12, 12, 3)}, TypeError, "picture must be of uint8, not torch.float32"),
        ({"picture": torch.zeros(12, 12, dtype=torch.uint8)}, ValueError, "picture must have the shape"),
        ({"grid": (3, 4)}, ValueError, r"patches must have the shape \(12,\), not \(9,\)"),
        ({"grid": (9,)}, ValueError, r"grid must have the shape \(2,\), not \(1,\)"),
        ({"patches": [1] * 9}, ValueError, "patches must be different tokens from 0 to 9"),
        ({"patches": range(2, 11)}, ValueError, "patches must be different tokens from 0 to 9"),
        ({"inputs": {"pixel_values": torch.zeros(2, 3, 12, 12)}}, ValueError, r"inputs\['pixel_values'\] must have"),
    ],
)
def test_an_explanation_checks_its_picture(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    from dataclasses import replace

    explanation = explain_images(classifier(), processor(), GOOD, **QUICK)[0]
    assert explanation.picture.shape == (*SIZE.values(), 3)
    with pytest.raises(error, match=message):
        replace(explanation, **changed)
