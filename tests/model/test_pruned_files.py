"""Pruned models saved and loaded: transformers' own files, and what is refused."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from toy import HEADS, LAYERS, bert_config, sentences, tiny_bert, tiny_llama
from transformers.models.bert.modeling_bert import BertSelfAttention

from captum_attattr import ResultFileError, UnsupportedModelError, load_pruned, mask_heads, prune_heads, save_pruned
from captum_attattr.model.head_adapters import HOWS

ALL = [0, 1, 2, 3]
GONE = {0: [0, 1], 1: ALL}
RECORD = {"encoder.0": [0, 1], "encoder.1": ALL}


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(sentences()).logits


def saved(path: Path, model: Any = None) -> Path:
    """The folder of a pruned model."""
    model = model or tiny_bert()
    prune_heads(model, GONE)
    return save_pruned(model, path)


def rewrite(folder: Path, **entries: Any) -> None:
    """Change entries of a folder's config."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# ------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("size", ["5GB", "4KB"])
def test_record_weights_and_class_come_back(size: str, tmp_path: Path) -> None:
    model = tiny_bert()
    prune_heads(model, GONE)
    assert save_pruned(model, str(tmp_path / "a" / "b"), max_shard_size=size) == tmp_path / "a" / "b"
    assert (len(list(tmp_path.glob("a/b/*.safetensors"))) > 1) == (size == "4KB")
    loaded = load_pruned(str(tmp_path / "a" / "b"))
    assert type(loaded) is transformers.BertForSequenceClassification
    assert loaded.config.pruned_heads == RECORD
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(logits(loaded), logits(model))


def test_loaded_model_is_pruned_and_saved_again(tmp_path: Path) -> None:
    loaded = load_pruned(saved(tmp_path / "one"))
    with mask_heads(loaded, {0: [3], 2: [1]}):
        masked = logits(loaded)
    prune_heads(loaded, {0: [1, 3], 2: [1]})
    torch.testing.assert_close(logits(loaded), masked, rtol=1e-5, atol=1e-5)
    again = load_pruned(save_pruned(loaded, tmp_path / "two"))
    assert torch.equal(logits(again), logits(loaded))
    assert again.config.pruned_heads == {"encoder.0": [0, 1, 3], "encoder.1": ALL, "encoder.2": [1]}


def test_options_are_those_of_from_pretrained(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    half = load_pruned(folder, dtype=torch.bfloat16, attn_implementation="eager")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half.config._attn_implementation == "eager"
    model, info = load_pruned(folder, output_loading_info=True, local_files_only=False)
    assert type(model) is transformers.BertForSequenceClassification
    assert not any(info.values())
    assert load_pruned(folder, output_attentions=True).config.output_attentions


def test_model_that_lost_no_head_is_loaded_plainly(tmp_path: Path) -> None:
    model = tiny_bert()
    loaded = load_pruned(save_pruned(model, tmp_path))
    assert "pruned_heads" not in json.loads((tmp_path / "config.json").read_text())
    assert torch.equal(logits(loaded), logits(model))
    assert torch.equal(logits(transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)), logits(model))


def test_transformers_alone_does_not_load_it_silently(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        transformers.AutoModelForSequenceClassification.from_pretrained(saved(tmp_path))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    for number, kind in enumerate([transformers.BertForMaskedLM, transformers.BertForPreTraining]):
        model = kind(bert_config()).eval()
        loaded: Any = load_pruned(saved(tmp_path / str(number), model))
        assert loaded.cls.predictions.decoder.weight is loaded.get_input_embeddings().weight
        assert type(loaded) is kind
        with torch.no_grad():
            for ours, theirs in zip(loaded(sentences()).values(), model(sentences()).values(), strict=True):
                assert torch.equal(ours, theirs)


def test_generation_settings_survive(tmp_path: Path) -> None:
    model = tiny_llama(initializer_range=0.3)
    model.generation_config.max_new_tokens = 5
    model.generation_config.repetition_penalty = 1.5
    loaded: Any = load_pruned(saved(tmp_path, model))
    assert loaded.can_generate()
    assert loaded.generation_config.repetition_penalty == 1.5
    ids = sentences(2, 4)
    wanted = model.generate(ids, attention_mask=torch.ones_like(ids))
    assert torch.equal(loaded.generate(ids, attention_mask=torch.ones_like(ids)), wanted)
    assert wanted.shape[1] <= 9


def test_models_of_one_config_keep_their_records_apart(tmp_path: Path) -> None:
    config = bert_config()
    first, second, third = (transformers.BertForSequenceClassification(config).eval() for _ in range(3))
    prune_heads(first, {0: [1]})
    prune_heads(second, {0: [2]})
    for number, model in ((1, first), (2, second)):
        loaded = load_pruned(save_pruned(model, tmp_path / str(number)))
        assert loaded.config.pruned_heads == {"encoder.0": [number]}
        assert torch.equal(logits(loaded), logits(model))
    assert torch.equal(logits(load_pruned(save_pruned(third, tmp_path / "3"))), logits(third))


def test_pruning_one_model_does_not_mark_others_of_its_config(tmp_path: Path) -> None:
    config = bert_config(attn_implementation="eager")
    first, second = (transformers.BertForSequenceClassification(config).eval() for _ in range(2))
    prune_heads(first, GONE)
    assert first.config.pruned_heads == RECORD
    assert not hasattr(second.config, "pruned_heads")
    second.save_pretrained(tmp_path)
    assert torch.equal(logits(load_pruned(tmp_path, attn_implementation="eager")), logits(second))
    # All parts of the pruned model follow the same copy.
    assert {id(m.config) for m in first.modules() if hasattr(m, "config")} == {id(first.config)}
    first.set_attn_implementation("sdpa")
    assert first.bert.encoder.layer[0].attention.self.config._attn_implementation == "sdpa"
    assert second.config._attn_implementation == config._attn_implementation == "eager"


def test_model_built_from_a_pruned_models_config_is_whole(tmp_path: Path) -> None:
    pruned = tiny_bert()
    prune_heads(pruned, {0: [1]})
    fresh = transformers.BertForSequenceClassification(pruned.config).eval()
    assert torch.equal(logits(load_pruned(save_pruned(fresh, tmp_path / "fresh"))), logits(fresh))
    assert pruned.config.pruned_heads == {"encoder.0": [1]}
    assert torch.equal(logits(load_pruned(save_pruned(pruned, tmp_path / "pruned"))), logits(pruned))


def test_configs_inside_a_config_are_copied_with_it() -> None:
    texts = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(text_config={**texts, "vocab_size": 9}, vision_config={**texts, "image_size": 30})
    first, second = transformers.CLIPModel(config), transformers.CLIPModel(config)
    prune_heads(first, {0: [1]})
    assert not hasattr(second.config, "pruned_heads")
    assert first.text_model.config is first.config.text_config
    assert second.text_model.config is config.text_config
    assert first.config.text_config is not config.text_config


def test_models_beside_one_another_are_recorded_apart(tmp_path: Path) -> None:
    """One without attention comes first."""
    small = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    both = nn.ModuleList([transformers.ResNetModel(small), tiny_bert(seed=0), tiny_bert(seed=1)])
    prune_heads(both, {0: [1], LAYERS + 2: ALL})
    for number, record in ((1, {"encoder.0": [1]}), (2, {"encoder.2": ALL})):
        model: Any = both[number]
        assert model.config.pruned_heads == record
        assert torch.equal(logits(load_pruned(save_pruned(model, tmp_path / str(number)))), logits(model))
    assert not hasattr(both[0].config, "pruned_heads")


def test_part_of_a_model_is_recorded_too(tmp_path: Path) -> None:
    model = tiny_bert()
    prune_heads(model.bert, GONE)
    assert torch.equal(logits(load_pruned(save_pruned(model, tmp_path / "whole"))), logits(model))
    bare: Any = load_pruned(save_pruned(model.bert, tmp_path / "bare"))
    assert type(bare) is transformers.BertModel
    with torch.no_grad():
        assert torch.equal(bare(sentences())[0], model.bert(sentences())[0])


# ------------------------------------------------------------------------------------------- what is refused


def test_code_of_the_folder_never_runs(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    wanted = logits(load_pruned(folder))
    mark = folder / "it_ran"
    for name in ("theirs.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(mark)!r}, 'w').close()\n")
    rewrite(folder, auto_map={"AutoConfig": "theirs.Config", "AutoModelForSequenceClassification": "theirs.Model"})
    assert torch.equal(logits(load_pruned(folder)), wanted)
    with pytest.raises(ValueError, match="trust_remote_code=True: load_pruned never runs a folder's own code"):
        load_pruned(folder, trust_remote_code=True)
    rewrite(folder, model_type="theirs")
    with pytest.raises(ValueError, match="custom code"):
        load_pruned(folder)
    assert not mark.exists()


@pytest.mark.parametrize("names", [["os"], ["__version__"], ["BertConfig"], ["AutoModel"], ["TheirBert"], [], None])
def test_unknown_architecture_is_named(names: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    rewrite(folder, architectures=names)
    with pytest.raises(ValueError, match=re.escape(f"names {names or []} as its architecture")):
        load_pruned(folder)


RECORDS: dict[str, tuple[Any, str]] = {
    "layer": ({"encoder.9": [1]}, r"name \['encoder.9'\]; the model has \['encoder.0', 'encoder.1', 'encoder.2'\]"),
    "kind": ({"decoder.0": [1]}, r"name \['decoder.0'\]; the model has"),
    "old form": ({"0": [1]}, r"name \['0'\]; the model has \['encoder.0'"),
    "head": ({"encoder.0": [HEADS]}, "head 4 of layer .* is out of range: the layer has heads 0 to 3"),
    "list": ([1], r"pruned_heads must be {'encoder.0': \[heads\]}, got \[1\]"),
    "number": ({"encoder.0": 1}, r"pruned_heads must be .*, got {'encoder.0': 1}"),
    "text": ({"encoder.0": ["a"]}, r"pruned_heads must be .*, got {'encoder.0': \['a'\]}"),
}


@pytest.mark.parametrize(("record", "message"), RECORDS.values(), ids=RECORDS)
def test_record_that_the_model_cannot_have_is_refused(record: Any, message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    rewrite(folder, pruned_heads=record)
    with pytest.raises(ValueError, match=message):
        load_pruned(folder)


@pytest.mark.parametrize("record", [{}, {"encoder.0": [0]}, RECORD | {"encoder.2": [0]}], ids=str)
def test_record_that_the_weights_do_not_have_is_refused(record: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    rewrite(folder, pruned_heads=record)
    with pytest.raises(RuntimeError):
        load_pruned(folder)


@pytest.mark.parametrize("make", ["nothing", "empty", "file"])
def test_folder_without_a_model_is_named(make: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if make == "empty":
        path.mkdir()
    elif make == "file":
        path.write_text("x")
    with pytest.raises(FileNotFoundError, match=f"no pruned model in '{path}': it has no config.json"):
        load_pruned(path)


DAMAGES = {
    "config": ("config.json", b"{", "is not a valid JSON file"),
    "weights": ("model.safetensors", b"junk", "Error while deserializing header"),
    "no weights": ("model.safetensors", None, "no file named model.safetensors"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_folder_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    (folder / name).write_bytes(content) if content else (folder / name).unlink()
    with pytest.raises(ResultFileError, match=f"model' holds no whole model: .*{message}"):
        load_pruned(folder)


def test_what_is_no_path_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (None, 3, b"model"):
        for call in (partial(save_pruned, tiny_bert()), load_pruned):
            with pytest.raises(TypeError, match="path must be a string or a path, not"):
                call(path)
    for call in (partial(save_pruned, tiny_bert()), load_pruned):
        with pytest.raises(ValueError, match=r"path is empty; the working directory is '\.'"):
            call("")
    with pytest.raises(ValueError, match=r"the folder '.*file/model' cannot be made: "):
        save_pruned(tiny_bert(), tmp_path / "file" / "model")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft
def test_adapters_are_merged_before_a_model_is_saved(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapted: Any = peft.get_peft_model(
        tiny_bert(), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights=False)
    ).eval()
    prune_heads(adapted, {0: [0, 1], 1: [2]})
    wanted = logits(adapted)
    with pytest.raises(TypeError, match="must be a transformers model, as the one inside of it, got PeftModel"):
        save_pruned(adapted, tmp_path / "model")
    with pytest.raises(ValueError, match=r"BertFor.* has adapters \(peft\): merge them first"):
        save_pruned(adapted.get_base_model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())
    folder = save_pruned(adapted.merge_and_unload(), tmp_path / "model")
    torch.testing.assert_close(logits(load_pruned(folder)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["query.base_layer.weight", "query", "nothing", "output.nothing"])
def test_layout_of_parameters_that_are_not_there_is_refused(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    rewrite(folder, pruned_layouts={"encoder.0": {"how": HOWS[0], "shapes": {name: [1]}}})
    with pytest.raises(ValueError, match=f"encoder.0 have '{name}', and the layer has no such parameter"):
        load_pruned(folder)


@pytest.mark.parametrize("option", ["formt", "max_shard_sizes", "comit_message", "nothing_like_it", "dtype"])
def test_option_that_save_pretrained_does_not_have_is_refused(option: str, tmp_path: Path) -> None:
    """It would take it, and do nothing with it."""
    meant = {"formt": "format", "max_shard_sizes": "max_shard_size", "comit_message": "commit_message"}.get(option)
    message = f"save_pruned has no argument '{option}'" + (f"; did you mean '{meant}'?" if meant else "")
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        save_pruned(tiny_bert(), tmp_path / "x", **{option: "5GB"})
    assert not (tmp_path / "x").exists()


class OwnBert(transformers.BertForSequenceClassification):
    """A class of one's own."""


class OwnAttention(BertSelfAttention):
    """Attention of one's own, in the place of BERT's."""


@pytest.mark.filterwarnings("ignore:.* one count of heads for all layers:UserWarning")
def test_class_that_load_pruned_does_not_know_is_refused(tmp_path: Path) -> None:
    model = OwnBert(bert_config()).eval()
    prune_heads(model, GONE)
    with pytest.raises(UnsupportedModelError, match="OwnBert is not one: give format='transformers', which OwnBert"):
        save_pruned(model, tmp_path / "own")
    assert not (tmp_path / "own").exists()
    save_pruned(model, tmp_path / "plain", format="transformers")
    loaded = OwnBert.from_pretrained(tmp_path / "plain").eval()
    assert torch.allclose(logits(loaded), logits(model), atol=1e-6)


def test_attention_that_the_config_does_not_make_is_refused(tmp_path: Path) -> None:
    model = tiny_bert()
    model.bert.encoder.layer[1].attention.self = OwnAttention(model.config).eval()
    prune_heads(model, {0: [1]})
    with pytest.raises(UnsupportedModelError, match=r"encoder 1: .* is a OwnAttention, .* makes a BertSelfAttention"):
        save_pruned(model, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_only_models_of_transformers_are_saved_to_folders(tmp_path: Path) -> None:
    bare: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="model must be a transformers model, got Linear"):
        save_pruned(bare, tmp_path / "model")
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ValueError, match=f"path must be a folder, but '{file}' is a file"):
        save_pruned(tiny_bert(), file)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
