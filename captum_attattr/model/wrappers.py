"""Models inside others: what wrappers hold, the language model of a multimodal one, modules of one's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.families import causal_language_models

WHOLE_TEXTS = ("classification", "next_token")
"""Tasks of which a text has one decision: a class, or the token that comes next."""
SIMILARITIES = ("similarity", "similarity_cls")
"""Tasks of an encoder without a head: texts are vectors, the mean of their tokens' (or what its folder says), or the
first token's."""
TASKS = (*WHOLE_TEXTS, "question_answering", "token_classification", "masked_lm", *SIMILARITIES)
"""What a model gives: an output for each class, or for each token of its vocabulary at every position, of the next or
of a masked one; for each token one of where an answer begins and one of where it ends, or one for each label."""
TEXT_TO_TEXT = "text_to_text"
"""The task of an encoder-decoder that writes a text for another: a token that comes next, as far as it is written."""
_ENDINGS = {
    "classification": ("ForSequenceClassification",),
    "question_answering": ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
    "token_classification": ("ForTokenClassification",),
    "masked_lm": ("ForMaskedLM",),
}
"""Of the names of the classes of each task."""
_OF_VOCABULARY = {"next_token", "masked_lm"}
"""Tasks of one form: which of them a model was trained for is not always told by its class."""


def unwrapped(model: Any) -> Any:
    """Return the model inside `torch.compile`, DataParallel, DDP, peft and a sentence-transformers CrossEncoder.

    FSDP stays, since its forward puts the weights together.

    Raises:
        TypeError: an adapter that adds positions to the tokens (soft prompts, prefixes).
    """
    while isinstance(model, nn.Module):
        inner: Any = None
        names = {kind.__name__ for kind in type(model).__mro__}
        if hasattr(model, "_orig_mod"):
            inner = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        elif "PeftModel" in names:
            adapted: Any = model
            adapter = adapted.active_peft_config
            if getattr(adapter, "is_prompt_learning", False):
                raise TypeError(
                    f"{type(model).__name__} puts {adapter.num_virtual_tokens} virtual positions ({adapter.peft_type}) "
                    "before the tokens, so its maps are not of the tokens; adapters that change weights (LoRA) are "
                    "explained"
                )
            inner = adapted.get_base_model()
        elif "CrossEncoder" in names:
            inner = getattr(model, "model", None)
        elif "SentenceTransformer" in names:
            first: Any = next(iter(model.children()), None)
            inner = getattr(first, "auto_model", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
    return model


def check_whole(model: nn.Module) -> None:
    """Check that each process has all weights: processes that share work run forwards of their own.

    Raises:
        UnsupportedModelError: FSDP has sharded the weights over several processes.
    """
    for part in model.modules():
        names = {kind.__name__ for kind in type(part).__mro__}
        shards = 1
        if "FullyShardedDataParallel" in names:
            wrapper: Any = part
            shards = wrapper.process_group.size()
        elif "FSDPModule" in names:
            meshes = (getattr(parameter, "device_mesh", None) for parameter in part.parameters())
            shards = max((mesh.size() for mesh in meshes if mesh is not None), default=1)
        if shards > 1:
            raise UnsupportedModelError(
                f"FSDP has sharded the weights of {type(model).__name__} over {shards} processes, and each must "
                "hold the whole model: save it with a full state dict, and load that into a model that is not wrapped"
            )


def task_of(model: nn.Module) -> str | None:
    """Return the task that a model's class tells, one of `TASKS`, or None."""
    names = {kind.__name__ for kind in type(model).__mro__}
    for task, endings in _ENDINGS.items():
        if any(name.endswith(endings) for name in names):
            return task
    listed = names & causal_language_models()
    remote = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)
    return "next_token" if listed or remote else None


def writes_from_source(model: Any) -> bool:
    """Return whether a model, or the one in a wrapper, is an encoder-decoder that writes a text for another text."""
    model = unwrapped(model)
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    writes = callable(getattr(model, "can_generate", None)) and bool(model.can_generate())
    return writes and model.main_input_name == "input_ids" and "decoder_input_ids" in parameters_of(model)


def language_tower(model: nn.Module) -> str:
    """Return the name of the language model inside a multimodal model that generates text; "" where there is none."""
    config: Any = getattr(model, "config", None)
    generates = any("ForConditionalGeneration" in kind.__name__ for kind in type(model).__mro__)
    if config is None or not (generates or task_of(model) == "next_token") or not hasattr(config, "get_text_config"):
        return ""
    text = config.get_text_config()
    if text is config or getattr(config, "is_encoder_decoder", False):
        return ""
    from transformers import PreTrainedModel

    found = (n for n, part in model.named_modules() if isinstance(part, PreTrainedModel) and part.config is text)
    return next(found, "")


class OwnModel(nn.Module):
    """A module with a head of its own around a transformer, called as a transformers model is.

    Args:
        model: takes tensors by the names of the tokenizer (input_ids, attention_mask ...) and returns a tensor, or
            something that has one as `logits`, ["logits"] or [0].

    Raises:
        TypeError: there is no transformers model inside.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from transformers import PreTrainedModel

        self.inner = model
        core = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
        if core is None:
            raise TypeError(f"expected a model of transformers, or a module around one, got {type(model).__name__}")
        self.config: Any = copy.deepcopy(core.config)
        self._embeddings = [core.get_input_embeddings]  # in a list, to be no part of this module

    def get_input_embeddings(self) -> Any:
        """Return the embeddings of the transformer inside."""
        return self._embeddings[0]()

    def forward(self, **inputs: Tensor) -> Any:
        """Return the module's outputs as `logits`."""
        return SimpleNamespace(logits=_logits(self.inner(**inputs)))


def _logits(output: Any) -> Any:
    """Return the tensor of outputs that a module returns; of where an answer begins and ends (B, T, 2)."""
    if getattr(output, "start_logits", None) is not None:
        return torch.stack((output.start_logits, output.end_logits), -1)
    if isinstance(output, Mapping):
        return output["logits"] if "logits" in output else next(iter(output.values()))
    logits = getattr(output, "logits", None)
    if logits is not None:
        return logits
    return output[0] if isinstance(output, tuple | list) else output


def parameters_of(model: Any) -> Mapping[str, inspect.Parameter]:
    """Return the arguments of a model's forward by name."""
    return inspect.signature(model.inner.forward if isinstance(model, OwnModel) else model.forward).parameters


def understood(
    model: Any, task: Any, example: Callable[[], Mapping[str, Tensor]], tasks: Sequence[str] = TASKS
) -> tuple[Any, str]:
    """Return a model as the text-level functions call it, and its task.

    Args:
        model: a transformers model, one in a wrapper, or a module around one.
        task: one of `tasks`; None for what the model's class tells, or else its outputs.
        example: gives what the model takes, to see the outputs of a module that is not known by its class.
        tasks: that are taken.

    Raises:
        TypeError: no such model.
        ValueError: an unknown task, or outputs that do not fit it.
    """
    if task is not None and task not in tasks:
        raise ValueError(f"task={task!r:.60} is unknown; use one of {', '.join(map(repr, tasks))}, or None")
    from transformers import PreTrainedModel

    model = unwrapped(model)
    if isinstance(model, nn.Module):
        check_whole(model)
    known = task_of(model) if isinstance(model, nn.Module) else None
    if known is not None and (task or known) not in tasks:
        raise TypeError(
            f"{type(model).__name__} is a model for {known.replace('_', ' ')}: explain and token_scores take it; what "
            "is asked for here needs a model for sequence classification or a causal language model"
        )
    if TEXT_TO_TEXT in tasks and writes_from_source(model):
        return model, TEXT_TO_TEXT
    own = isinstance(model, nn.Module) and not isinstance(model, PreTrainedModel)
    if known and not own:
        if task not in (None, known) and {task, known} != _OF_VOCABULARY:
            raise ValueError(f"task={task!r} does not fit {type(model).__name__}, whose task is {known!r}")
        return model, task or known
    if not own and task in SIMILARITIES:
        if getattr(model.config, "is_encoder_decoder", False) and hasattr(model, "decoder"):
            raise ValueError(f"task={task!r}: {type(model).__name__} has a decoder too; give model.get_encoder()")
        if model.main_input_name != "input_ids" or hasattr(model, "get_image_features"):
            raise ValueError(f"task={task!r}: {type(model).__name__} takes more than texts; explain_images takes CLIP")
        return model, str(task)
    if not own and task is None:
        sees = getattr(model, "main_input_name", "") == "pixel_values" or hasattr(model, "get_image_features")
        raise TypeError(
            "expected a model for sequence classification or a causal language model, got "
            f"{type(model).__name__}; say its task, or give LayerAttAttr a forward function of your own"
            + "; explain_images explains pictures" * sees
            + "; explain_generation explains what it writes" * writes_from_source(model)
        )
    return _own(OwnModel(model), task, example())


def _own(model: OwnModel, task: str | None, inputs: Mapping[str, Tensor]) -> tuple[Any, str]:
    """Return a module of one's own, and the task that its outputs on an example tell."""
    name, training = type(model.inner).__name__, [(part, part.training) for part in model.modules()]
    accepted = parameters_of(model)
    if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        inputs = {key: value for key, value in inputs.items() if key in accepted}
    if "input_ids" not in inputs:
        raise TypeError(f"the forward of {name} must take input_ids (and attention_mask) by name: {list(accepted)}")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            logits = model.eval()(**{key: value.to(device) for key, value in inputs.items()}).logits
    finally:
        for part, mode in training:
            part.training = mode
    shape = tuple(getattr(logits, "shape", ()))
    count, vocabulary = inputs["input_ids"].shape[1], model.config.get_text_config().vocab_size
    found = "classification" if len(shape) == 2 else None
    if len(shape) == 3 and shape[1] == count:
        width = {None: vocabulary, "masked_lm": vocabulary, "question_answering": 2}.get(task, shape[2])
        found = (task or "next_token") if shape[2] == width and task != "classification" else None
    if found is None or task not in (None, found):
        raise ValueError(
            f"{name} gives {f'outputs of shape {shape}' if shape else type(logits).__name__} for 1 text of {count} "
            f"tokens, which do not fit {f'task={task!r}' if task else 'any task'}: classification needs (1, classes), "
            "next_token and masked_lm (1, tokens, vocabulary), question_answering (1, tokens, 2), "
            "token_classification (1, tokens, labels)"
        )
    if shape[-1] > 1 and logits.min() >= 0 and torch.allclose(logits.sum(-1), logits.new_ones(()), atol=1e-4):
        raise ValueError(f"{name} gives probabilities, which add up to 1: return the logits that they are made of")
    if found in ("classification", "token_classification") and shape[-1] != model.config.num_labels:
        model.config.num_labels = shape[-1]
    return model, found
