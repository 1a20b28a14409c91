"""Models in wrappers, of one's own making, and multimodal ones asked about text: F is what the model itself gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.version import Version
from tiny_families import tiny_model
from torch import Tensor, nn
from toy import HIDDEN, VOCAB, tiny_bert, tiny_llama, tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertForMaskedLM,
    BertModel,
    BertPreTrainedModel,
    CanineTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaForCausalLM,
    PreTrainedModel,
)

from captum_attattr import (
    HeadImportance,
    UnsupportedModelError,
    attention_layers,
    compare_attributions,
    effectiveness_analysis,
    explain,
    explain_dataset,
    explain_iter,
    faithfulness,
    find_patterns,
    head_importance,
    mask_heads,
    prune_heads,
    pruning_curve,
    removal_effects,
    token_scores,
)
from captum_attattr.attribution.integration import Integrator
from captum_attattr.attribution.methods.table import ATTRIBUTIONS

pytestmark = [  # of peft, and of torch.compile
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]
TEXT = "good film a plot"
QUIET: dict[str, Any] = {"n_steps": 1, "progress": False}


class Headed(nn.Module):
    """A head of one's own around a model without one."""

    def __init__(self, form: str = "tensor", outputs: int = 2) -> None:
        super().__init__()
        self.encoder = BertModel(tiny_bert().config)
        self.head = nn.Linear(HIDDEN, outputs)
        self.form = form

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits = self.head(self.encoder(input_ids, attention_mask).last_hidden_state[:, 0])
        forms = {
            "tensor": logits,
            "tuple": (logits,),
            "dict": {"logits": logits},
            "object": SimpleNamespace(logits=logits),
        }
        return forms[self.form]


class Scorer(nn.Module):
    """A language model of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = tiny_llama()

    def forward(self, input_ids: Tensor, **rest: Any) -> Tensor:
        return self.lm(input_ids=input_ids, **rest).logits


class RemoteForCausalLM(LlamaForCausalLM):
    """As code on the hub defines it."""


def lora(model: PreTrainedModel, task: str) -> Any:
    peft = pytest.importorskip("peft")
    wanted = ["query", "value"] if task == "SEQ_CLS" else ["q_proj", "v_proj"]
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=task, r=2, target_modules=wanted)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return adapted


def cross_encoder(tmp_path: Any) -> Any:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model, folder = tiny_bert(num_labels=1), tmp_path / "model"
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return sentence_transformers.CrossEncoder(str(folder), device="cpu")


def remote() -> Any:
    torch.manual_seed(0)
    return RemoteForCausalLM(tiny_llama().config).eval()


WRAPPERS: dict[str, Any] = {
    "compiled": lambda _: torch.compile(tiny_bert()),
    "data parallel": lambda _: nn.DataParallel(tiny_bert()),
    "LoRA classifier": lambda _: lora(tiny_bert(), "SEQ_CLS"),
    "LoRA language model": lambda _: lora(tiny_llama(), "CAUSAL_LM"),
    "compiled LoRA": lambda _: torch.compile(lora(tiny_bert(), "SEQ_CLS")),
    "CrossEncoder": cross_encoder,
    "remote code": lambda _: remote(),
    **{f"own, {form}": lambda _, form=form: Headed(form).eval() for form in ("tensor", "tuple", "dict", "object")},
    "own language model": lambda _: Scorer().eval(),
    "own, wrapped": lambda _: nn.DataParallel(Headed().eval()),
}


def logits_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What the model itself gives, without this package's help."""
    inner = getattr(model, "_orig_mod", model)
    if type(inner).__name__ == "CrossEncoder":
        inner = inner.model
    while isinstance(inner, nn.DataParallel):
        inner = inner.module
    if isinstance(inner, Headed):
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        output = inner(**inputs)
    if isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_models_own_output_is_what_is_explained(name, tmp_path, unchanged):
    model, tokenizer = WRAPPERS[name](tmp_path), tiny_tokenizer()
    with unchanged(model):
        one = explain(model, tokenizer, TEXT, progress=False)[0]
    logits = logits_of(model, one.inputs)
    logits = logits[:, -1] if logits.dim() == 3 else logits
    wanted = logits[0, 0] if logits.shape[1] == 1 else logits.softmax(-1)[0, one.target]
    assert abs(float(wanted) - one.value) < 1e-5
    assert one.attributions.abs().max() > 0


@pytest.mark.parametrize("name", ["data parallel", "LoRA classifier", "own, tensor", "compiled"])
def test_heads_and_archives_of_wrapped_models(name, tmp_path):
    model, tokenizer = WRAPPERS[name](tmp_path), tiny_tokenizer()
    importance = head_importance(model, tokenizer, [TEXT, "a"], [0, 1], method="taylor", progress=False)
    assert importance.scores.abs().max() > 0
    [one] = explain_dataset(model, tokenizer, [TEXT], tmp_path / "run", **QUIET)
    torch.testing.assert_close(one.attributions, explain(model, tokenizer, TEXT, **QUIET)[0].attributions)
    with mask_heads(model, {0: [0, 1, 2, 3], 1: [0, 1, 2, 3]}):
        masked = explain(model, tokenizer, TEXT, target=one.target, **QUIET)[0]
    assert masked.value != one.value


TWO = ["good film", "a plot man"]
FUNCTIONS: dict[str, Any] = {
    "explain_iter": lambda model, rows, one: next(iter(explain_iter(model, *rows[:2], **QUIET))).value,
    "token_scores": lambda model, rows, one: token_scores(model, *rows[:2], progress=False)[0].value,
    "head_importance": lambda model, rows, one: head_importance(model, *rows, "attention", progress=False),
    "loss without a head": lambda model, rows, one: head_importance(model, *rows, "loss_difference", progress=False),
    "pruning_curve": lambda model, rows, one: pruning_curve(
        model, *rows, head_importance(model, *rows, "random", progress=False), 2, structural=True, progress=False
    ),
    "effectiveness_analysis": lambda model, rows, one: effectiveness_analysis(
        model, *rows, n_steps=1, target="gold", progress=False
    ),
    "faithfulness": lambda model, rows, one: faithfulness(model, rows[0], [one], progress=False),
    "removal_effects": lambda model, rows, one: removal_effects(model, rows[0], one, one.strongest(2)).value,
    "compare_attributions": lambda model, rows, one: compare_attributions(
        model, *rows[:2], ["gradient_attention"], progress=False
    ),
    "find_patterns": lambda model, rows, one: find_patterns(model, *rows[:2], **QUIET),
}


@pytest.mark.parametrize("name", ["LoRA language model", "CrossEncoder", "own, dict", "own language model"])
@pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning", "ignore:1 text:UserWarning")
def test_every_function_takes_wrapped_models(name, tmp_path, unchanged):
    model, tokenizer = WRAPPERS[name](tmp_path), tiny_tokenizer()
    rows = tokenizer, TWO, [5, 6] if "language" in name else [0.5, 1.0] if name == "CrossEncoder" else [0, 1]
    one = explain(model, tokenizer, TWO[:1], **QUIET)[0]
    for function, call in FUNCTIONS.items():
        if function == "find_patterns" and name == "CrossEncoder":
            continue  # a score has no classes
        if function == "pruning_curve" and "language" in name:
            continue  # heads that share keys and values
        with unchanged(model):
            found = call(model, rows, one)
        if isinstance(found, float):
            assert abs(found - one.value) < 1e-5, function


def test_ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/x", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(tiny_bert())
        one = explain(model, tiny_tokenizer(), TEXT, **QUIET)[0]
    finally:
        torch.distributed.destroy_process_group()
    assert one.value == explain(tiny_bert(), tiny_tokenizer(), TEXT, **QUIET)[0].value


class Prefixed(nn.Module):
    """Puts three positions of its own before the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.bert, self.prefix = tiny_bert(), nn.Parameter(torch.ones(3, HIDDEN))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        embedded = self.bert.get_input_embeddings()(input_ids)
        whole = torch.cat([self.prefix.expand(len(embedded), -1, -1), embedded], 1)
        return self.bert(inputs_embeds=whole).logits


def with_canine() -> tuple[Any, Any]:
    return tiny_model("canine"), CanineTokenizer()


SIZES = {
    "positions before the tokens": (
        lambda: (Prefixed().eval(), tiny_tokenizer()),
        r"maps of 9 x 9 for 6 tokens: the model puts positions of its own beside the tokens",
    ),
    "pooled tokens": (
        with_canine,
        r"maps of 4 x 4 for 18 tokens: the model pools its tokens; layers=\[0, 4\] have maps of the tokens",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_maps_that_are_not_of_the_tokens_are_refused_before_any_is_made(name, monkeypatch, tmp_path):
    make, message = SIZES[name]
    model, tokenizer = make()
    monkeypatch.setattr(Integrator, "run", lambda *_: pytest.fail("integrated"))
    for function, more in ((explain, ()), (explain_dataset, (tmp_path / "run",)), (find_patterns, ())):
        with pytest.raises(UnsupportedModelError, match=message):
            function(model, tokenizer, [TEXT], *more, **QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("attribution", ATTRIBUTIONS)
@pytest.mark.parametrize("name", SIZES)
def test_every_method_refuses_them(name, attribution):
    make, message = SIZES[name]
    with pytest.raises(UnsupportedModelError, match=message):
        explain(*make(), TEXT, attribution=attribution, progress=False)


def test_layers_of_the_tokens_can_be_chosen_where_others_are_pooled():
    model, tokenizer = with_canine()
    one = explain(model, tokenizer, TEXT, layers=[0, 4], **QUIET)[0]
    assert one.attributions.shape == (2, 4, 18, 18)


class TwoEncoders(nn.Module):
    """Two encoders of other counts of heads, as the layers of Laguna and of Step 3.7 have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = Headed(), BertModel(tiny_bert(num_attention_heads=2, num_hidden_layers=1).config)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Tensor:
        states = self.second(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.first(input_ids, attention_mask) + self.head(states[:, 0])


def test_layers_with_fewer_heads_than_others_have_zeros_behind_theirs():
    model, tokenizer = TwoEncoders().eval(), tiny_tokenizer()
    one = explain(model, tokenizer, TEXT, **QUIET)[0]
    last = len(one.attributions) - 1
    assert not one.attributions[last, 2:].any()
    alone = explain(model, tokenizer, TEXT, layers=[last], **QUIET)[0].attributions[0]
    assert torch.allclose(one.attributions[last, :2], alone, atol=1e-7)
    importance = head_importance(model, tokenizer, [TEXT], [0], "attention", progress=False)
    assert {head for layer, head in importance.ranking() if layer == last} == {0, 1}
    curve = pruning_curve(model, tokenizer, [TEXT], [0], importance, steps=2, progress=False)
    assert curve.heads == [0, last * 4 + 2]
    effects = removal_effects(model, tokenizer, one, [(last, 1, 0, 1), (last, 3, 0, 1)]).effects
    assert effects[0].abs() > 1e-4
    assert effects[1].abs() < 1e-6
    for unit in ("edge", "head"):
        assert torch.isfinite(
            torch.as_tensor(faithfulness(model, tokenizer, [one], unit=unit, progress=False).full)
        ).all()


# ----------------------------------------------------------------------------------------------------- FSDP


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/x", rank=0, world_size=1)
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "version",
    [
        1,
        pytest.param(
            2,
            marks=pytest.mark.skipif(
                Version(torch.__version__) < Version("2.7"), reason="torch 2.6 shards only on accelerators"
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_fsdp(version, one_process):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    model = tiny_bert()
    if version == 1:
        model = fsdp.FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    else:
        for block in model.bert.encoder.layer:
            fsdp.fully_shard(block, mesh=one_process)
        fsdp.fully_shard(model, mesh=one_process)
    given = [TEXT, "a"], [0, 1]
    found, wanted = (explain(one, tiny_tokenizer(), TEXT, **QUIET)[0] for one in (model, tiny_bert()))
    torch.testing.assert_close(found.attributions, wanted.attributions)
    assert abs(found.value - wanted.value) < 1e-6
    scores = [
        head_importance(m, tiny_tokenizer(), *given, **QUIET | {"rule": "gausslegendre"}) for m in (model, tiny_bert())
    ]
    torch.testing.assert_close(scores[0].scores, scores[1].scores)
    masks = {0: [0, 1]}
    with mask_heads(model, masks):
        masked = explain(model, tiny_tokenizer(), TEXT, target=0, **QUIET)[0].value
    with mask_heads(bert := tiny_bert(), masks):
        assert abs(masked - explain(bert, tiny_tokenizer(), TEXT, target=0, **QUIET)[0].value) < 1e-6


def sharded(kind: str) -> nn.Module:
    """A model that looks sharded over four processes."""
    model = tiny_bert()
    if kind == "FSDPModule":
        model.__class__ = type("FSDPBert", (type("FSDPModule", (), {}), type(model)), {})
        for parameter in model.parameters():
            parameter.device_mesh = SimpleNamespace(size=lambda: 4)
        return model
    wrapper = type("FullyShardedDataParallel", (nn.Module,), {})()
    wrapper.module, wrapper.process_group = model, SimpleNamespace(size=lambda: 4)
    return wrapper


@pytest.mark.parametrize("kind", ["FSDPModule", "FullyShardedDataParallel"])
def test_weights_over_several_processes_are_refused_with_what_to_do(kind):
    with pytest.raises(
        UnsupportedModelError, match=r"over 4 processes, and each must hold the whole .*full state dict"
    ):
        explain(sharded(kind), tiny_tokenizer(), TEXT, **QUIET)


def test_soft_prompts_are_refused_with_their_positions():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(tiny_llama(), config)
    with pytest.raises(TypeError, match=r"puts 5 virtual positions .* before the tokens"):
        explain(model, tiny_tokenizer(), TEXT, **QUIET)


def test_a_task_that_is_said():
    torch.manual_seed(0)
    model = BertForMaskedLM(tiny_bert().config).eval()
    with pytest.raises(ValueError, match="the tokenizer has no mask token"):
        explain(model, tiny_tokenizer(), TEXT, **QUIET)
    one = explain(model, tiny_tokenizer(), TEXT, task="next_token", **QUIET)[0]
    with torch.no_grad():
        wanted = model(**one.inputs).logits[0, -1].softmax(-1)[one.target]
    assert abs(float(wanted) - one.value) < 1e-5


class Remote(BertPreTrainedModel):
    """A model of transformers whose class does not say what it gives."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert, self.head = BertModel(config), nn.Linear(HIDDEN, VOCAB)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.head(self.bert(input_ids, attention_mask).last_hidden_state))


def nameless() -> Any:
    torch.manual_seed(0)
    return Remote(tiny_bert().config).eval()


FEW: Any = (tiny_tokenizer(), ["good film", "a plot"], [5, 6])
OVER_TEXTS: dict[str, Any] = {
    "explain_dataset": lambda model, texts, more: explain_dataset(model, FEW[0], texts, **more)[0].value,
    "token_scores": lambda model, texts, more: token_scores(model, FEW[0], texts, **more)[0].scores.tolist(),
    "find_patterns": lambda model, texts, more: find_patterns(model, FEW[0], texts, **more)[0].tokens,
    "head_importance": lambda model, texts, more: head_importance(
        model, FEW[0], texts, FEW[2], "taylor", **more
    ).scores.tolist(),
    "pruning_curve": lambda model, texts, more: (
        pruning_curve(
            model, FEW[0], texts, FEW[2], head_importance(tiny_llama(), *FEW, "random", progress=False), 2, **more
        ).loss
    ),
    "effectiveness_analysis": lambda model, texts, more: (
        effectiveness_analysis(model, FEW[0], texts, FEW[2], n_steps=1, **more).loss
    ),
}


@pytest.mark.parametrize("function", OVER_TEXTS)
def test_task_and_words_are_said_to_every_function_over_texts(function, tmp_path):
    call, model = OVER_TEXTS[function], nameless()
    folders = [{"folder": tmp_path / name} if function == "explain_dataset" else {} for name in "ab"]
    common = {"progress": False, "task": "next_token"}
    texts = call(model, FEW[1], common | folders[0])
    words = call(model, [["good", "film"], ["a", "plot"]], common | {"split_into_words": True} | folders[1])
    assert texts == words
    with pytest.raises(TypeError, match="say its task"):
        call(model, FEW[1], {"progress": False} | folders[0])


class Positional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = BertModel(tiny_bert().config)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(ids).last_hidden_state[:, 0]


class Cubes(Headed):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return super().forward(input_ids, attention_mask)[..., None, None]


class Probabilities(Headed):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return super().forward(input_ids, attention_mask).softmax(-1)


MISTAKES: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "unknown task": (
        tiny_bert,
        {"task": "translation"},
        ValueError,
        "task='translation' is unknown; use one of 'class",
    ),
    "other task": (
        tiny_bert,
        {"task": "next_token"},
        ValueError,
        "does not fit BertForSequenceClassification.*'classific",
    ),
    "own, other task": (
        Headed,
        {"task": "next_token"},
        ValueError,
        r"shape \(1, 2\) for 1 text of 4 tokens.*next_token",
    ),
    "own, no task": (Cubes, {}, ValueError, r"shape \(1, 2, 1, 1\).*do not fit any task"),
    "own probabilities": (Probabilities, {}, ValueError, "gives probabilities, which add up to 1: return the logits"),
    "own names": (Positional, {}, TypeError, r"must take input_ids .* by name: \['ids'\]"),
    "no transformer": (lambda: nn.Linear(2, 2), {}, TypeError, "or a module around one, got Linear"),
    "no module": (lambda: 3, {}, TypeError, "or a module around one, got int|got int"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name):
    make, options, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        explain(make(), tiny_tokenizer(), TEXT, **QUIET, **options)


# ------------------------------------------------------------------------------------------------- multimodal


def gemma() -> Any:
    text = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    text |= {"num_key_value_heads": 4, "intermediate_size": 48, "sliding_window": 4, "rms_norm_eps": 0.1}
    vision = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    vision |= {"image_size": 16, "patch_size": 4, "vision_use_head": False}
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_multimodal_model_is_its_language_model_where_text_is_asked_about(tmp_path):
    model, tokenizer = gemma(), tiny_tokenizer()
    assert isinstance(model, Gemma3ForConditionalGeneration)
    layers = attention_layers(model)
    assert [layer.index for layer in layers] == [0, 1]
    assert all("language_model" in layer.name for layer in layers)
    assert len(attention_layers(model.model.vision_tower)) == 3
    one = explain(model, tokenizer, TEXT, progress=False)[0]
    with torch.no_grad():
        wanted = model(**one.inputs).logits[0, -1].softmax(-1)[one.target]
    assert abs(float(wanted) - one.value) < 1e-5
    assert one.attributions.shape[:2] == (2, 4)
    importance = head_importance(model, tokenizer, [TEXT], [one.target], method="taylor", progress=False)
    assert importance.scores.shape == (2, 4)
    assert importance.tower == "model.language_model"
    assert "2 layers x 4 heads of model.language_model" in repr(importance)
    assert HeadImportance.load(importance.save(tmp_path / "heads")).tower == importance.tower
    for change in (lambda heads: mask_heads(model, heads).__enter__(), lambda heads: prune_heads(model, heads)):
        with pytest.raises(ValueError, match=r"its language model \(model.language_model\) has layers 0 to 1; give"):
            change({2: [0]})
    vision = [parameter.shape for parameter in model.model.vision_tower.parameters()]
    acted_on = {"model.language_model.layers.1.self_attn": [2]}
    with mask_heads(model, {1: [2]}) as off:
        masked = explain(model, tokenizer, TEXT, target=one.target, **QUIET)[0].value
    assert off == acted_on
    assert prune_heads(model, {1: [2]}) == acted_on
    with mask_heads(model, {1: [1, 2]}) as off:
        assert off == {"model.language_model.layers.1.self_attn": [1]}
    pruned = explain(model, tokenizer, TEXT, target=one.target, **QUIET)[0].value
    assert abs(pruned - masked) < 1e-5
    assert [parameter.shape for parameter in model.model.vision_tower.parameters()] == vision
