"""Tiny models whose attributions are known or quick to compute, a tokenizer, and a witness that nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from device import place
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

LAYERS, HEADS, HIDDEN, VOCAB, LABELS = 3, 4, 32, 40, 3
PAD, UNK, CLS, SEP = 0, 1, 2, 3
WORDS = (*"abcdefghijklmnopqrstuvwxyz", "good", "bad", "film", "plot", "man", "work")

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "initializer_range": 0.1,
    "max_position_embeddings": 24,
}


def bert_config(**changes: Any) -> BertConfig:
    return BertConfig(**SIZES | {"pad_token_id": PAD, "num_labels": LABELS} | changes)


def tiny_bert(seed: int = 0, **changes: Any) -> BertForSequenceClassification:
    """A classifier whose attention matters: without training it would hardly change a probability."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(bert_config(**changes)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)
        for block in model.bert.encoder.layer:
            block.attention.output.dense.weight.mul_(3)
    return place(model)


def wavering_bert(seed: int = 6, **changes: Any) -> BertForSequenceClassification:
    """A classifier that predicts all its classes, and changes its mind over a word or two."""
    model = tiny_bert(seed=seed, **changes)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.mul_(2)
        model.bert.pooler.dense.weight.mul_(3)
    return model


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    grouped = {"num_key_value_heads": 2, "head_dim": HIDDEN // HEADS, "pad_token_id": PAD, "bos_token_id": CLS}
    return place(LlamaForCausalLM(LlamaConfig(**SIZES | grouped | {"eos_token_id": SEP} | changes)).eval())


def tiny_bart(seed: int = 0) -> BartForSequenceClassification:
    """Two encoder layers and two decoder layers with cross attention."""
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=VOCAB,
        d_model=HIDDEN,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=24,
        init_std=0.1,
        pad_token_id=PAD,
        bos_token_id=CLS,
        eos_token_id=SEP,
        decoder_start_token_id=SEP,
        num_labels=LABELS,
    )
    return place(BartForSequenceClassification(config).eval())


def tiny_writer(name: str = "T5", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """An encoder-decoder that writes: three encoder layers, and two decoder blocks with cross attention."""
    torch.manual_seed(seed)
    ids = {"vocab_size": SEP + 1 + len(WORDS), "pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": SEP}
    sizes = {
        "d_model": HIDDEN,
        "decoder_start_token_id": PAD,
        "forced_eos_token_id": None,
        "tie_word_embeddings": False,
    }
    if "T5" in name:
        sizes |= {"d_kv": HIDDEN // HEADS, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": HEADS}
    else:
        sizes |= {"encoder_layers": 3, "decoder_layers": 2, "max_position_embeddings": 24, "init_std": 0.1}
        sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS)
        sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48)
    cls: Any = getattr(transformers, name if name == "MarianMTModel" else f"{name}ForConditionalGeneration")
    model = cls(cls.config_class(**ids | sizes | changes)).eval()
    head = model.get_output_embeddings()  # of its own, or the model would say again what it has just read
    head.weight = nn.Parameter(torch.randn(head.weight.shape) * 0.5)
    return place(model)


def probabilities(model: nn.Module) -> Callable[..., Tensor]:
    """F as the paper has it: (ids, mask=None) -> (B, classes)."""

    def forward(ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return model(input_ids=ids, attention_mask=mask).logits.softmax(-1)

    return forward


def sentences(batch: int = 3, length: int = 6, seed: int = 0) -> Tensor:
    """(B, T) token ids, [CLS] first and [SEP] last."""
    ids = torch.randint(SEP + 1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return place(ids)


class LinearInAttention(nn.Module):
    """Attention layers side by side on the same embeddings; the outputs are linear in each layer's attention.

    Output c is the sum over layers of <weight[c, l], context_l>, so that dF_c/dA_l, known in closed form,
    is the same everywhere on the path.
    """

    def __init__(self, layers: int = 1, outputs: int = 3, length: int = 6, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.bert = BertModel(bert_config(num_hidden_layers=layers), add_pooling_layer=False).eval()
        self.weight = nn.Parameter(torch.randn(outputs, layers, length, HIDDEN) / 10)
        place(self.eval())

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.bert.embeddings(ids)
        blocked = None if mask is None else (1 - mask[:, None, None, :].to(hidden.dtype)) * -1e9
        contexts = [block.attention.self(hidden, attention_mask=blocked)[0] for block in self.bert.encoder.layer]
        return torch.einsum("blqd,clqd->bc", torch.stack(contexts, dim=1), self.weight)

    @torch.no_grad()
    def gradient(self, ids: Tensor, target: int) -> list[Tensor]:
        """dF_target/dA of every layer, (B, H, T, T): the weight of a query times the value of a key."""
        hidden = self.bert.embeddings(ids)
        weights = self.weight[target].unflatten(-1, (HEADS, -1))
        return [
            torch.einsum("qhd,bkhd->bhqk", weight, block.attention.self.value(hidden).unflatten(-1, (HEADS, -1)))
            for weight, block in zip(weights, self.bert.encoder.layer, strict=True)
        ]


def tiny_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """One token for each of `WORDS`; adds [CLS] and [SEP], and segments to pairs."""
    vocabulary = {"[PAD]": PAD, "[UNK]": UNK, "[CLS]": CLS, "[SEP]": SEP}
    vocabulary |= {word: SEP + 1 + i for i, word in enumerate(WORDS)}
    core = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, **names | options)


CORPUS = ["good film", "a b", "хор", "## @@", "naïve"] * 3
BYTES = pre_tokenizers.ByteLevel.alphabet()


def byte_level(decoder: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges; no special tokens are added."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if decoder:
        core.decoder = decoders.ByteLevel()
    core.train_from_iterator(CORPUS, BpeTrainer(vocab_size=270, initial_alphabet=BYTES, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def _collect_configs(value: Any, seen: dict[int, PreTrainedConfig]) -> None:
    """Collect a config and the ones inside it, also those that no module of the model refers to."""
    if isinstance(value, PreTrainedConfig) and id(value) not in seen:
        seen[id(value)] = value
        for part in vars(value).values():
            _collect_configs(part, seen)


def _state(model: nn.Module) -> dict[str, Any]:
    """All that an attribution changes for a while, and all that it must never touch."""
    configs: dict[int, PreTrainedConfig] = {}
    for module in model.modules():
        _collect_configs(getattr(module, "config", None), configs)
    hooks = {
        (name, key): list(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if "hooks" in key and isinstance(value, dict)
    }
    return {
        "configs": {key: (c._attn_implementation_internal, c.to_dict()) for key, c in configs.items()},
        "hooks": hooks,
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "training": {name: module.training for name, module in model.named_modules()},
        "parameters": {name: (id(p), p.requires_grad, p.data_ptr()) for name, p in model.named_parameters()},
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "values": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "classes": [type(module) for module in model.modules()],
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "function modes": torch._C._len_torch_function_stack(),
        "interfaces": (sorted(AttentionInterface()), sorted(AttentionMaskInterface())),
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Assert that the model and the modes around it are at the end as they are now, also after an error."""
    before = _state(model)
    try:
        yield
    finally:
        after = _state(model)
        for part in before.keys() - {"values", "gradients"}:
            assert after[part] == before[part], part
        assert after["values"].keys() == before["values"].keys()
        for name, tensor in before["values"].items():
            assert torch.equal(after["values"][name], tensor), name
        for name, gradient in before["gradients"].items():
            assert after["gradients"][name] is gradient, name
