"""Models named on a command line: loaded from a folder or the hub, their own Python code only where it is asked for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from captum_attattr.model.families import text_to_text_models

KINDS = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
"""Endings of an architecture's name, and the class of transformers that loads it."""


def load_model(name: str, *, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Load a model of one of `KINDS`, or an encoder-decoder that writes, and its tokenizer, as `--model` names them.

    Args:
        name: a folder, as `save_pretrained` (or `save_pruned`) writes it, or a name on the hub.
        trust_remote_code: run the Python code that comes with the model.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        OSError: there is no such model; the message says what was tried.
        ValueError: the name is a file, or no such model is in the folder, or it needs code of its own, which was not
            asked for.
    """
    import transformers
    from safetensors import SafetensorError

    from captum_attattr.model.pruned_files import load_pruned

    _check_name(name)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        kind = _kind(name, config)
        if getattr(config, "pruned_heads", None) and Path(name).is_dir():
            model: Any = load_pruned(name)
        else:
            model = getattr(transformers, kind).from_pretrained(name, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise _explained(name, error, trust_remote_code) from error
    except RuntimeError as error:
        told = f"--model {name!r} cannot be loaded; its weights may not fit its config.json: {error}"
        raise ValueError(told) from error
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"--model {name!r}: its weights are damaged, or a pickle with more than tensors, which is not loaded; save "
            f"them again with save_pretrained: {error}"
        ) from error
    return model.eval(), tokenizer


def _check_name(name: str) -> None:
    """Check that a name is not that of a file, nor of a folder without a model."""
    path = Path(name)
    if not name:
        raise ValueError("--model is empty: give the folder of a model, or its name on the hub")
    if path.is_file():
        raise ValueError(
            f"--model {name!r} is a file; a model is a folder with config.json, the weights and the tokenizer, as "
            "save_pretrained writes it, or a name on the hub"
        )
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise PermissionError(f"--model {name!r} is a folder that cannot be read: permission denied")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"--model {name!r} is a folder without config.json: it holds no model of transformers")
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"--model {name!r}: there is no such folder")


def _kind(name: str, config: Any) -> str:
    """Return the class of transformers that loads a model, by the architecture that its configuration names."""
    architectures = config.architectures or []
    for architecture in architectures:
        if architecture in text_to_text_models():
            return "AutoModelForSeq2SeqLM"
        for ending, kind in KINDS.items():
            if architecture.endswith(ending):
                return kind
    raise ValueError(
        f"--model {name!r} holds {', '.join(architectures) or 'no architecture'}; a classifier of texts or tokens, "
        "a causal or masked language model, one that answers questions or an encoder-decoder that writes texts is "
        "needed (from Python, a model of any kind can be explained with LayerAttAttr)"
    )


def _explained(name: str, error: Exception, trusted: bool) -> Exception:
    """Return the error about a model that could not be loaded."""
    if str(error).startswith("--model"):
        return error
    if not trusted and "trust_remote_code" in str(error):
        return ValueError(
            f"--model {name!r} needs Python code that comes with it, which is not run; --trust_remote_code runs it: "
            "read it first"
        )
    if Path(name).is_dir():
        # safetensors calls a file missing that it may not read, as weights that were saved for their owner alone.
        closed = [str(file) for file in Path(name).iterdir() if not os.access(file, os.R_OK)]
        if closed and isinstance(error, OSError):
            return PermissionError(f"--model {name!r}: {closed[0]!r} cannot be read: permission denied")
        kind = OSError if isinstance(error, OSError) else ValueError  # its own kind may take more than a message
        return kind(f"--model {name!r} cannot be loaded: {error}")
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    return OSError(
        f"--model {name!r} is neither a folder here ({Path.cwd()}) nor a model that the hub gave{offline}: {error}"
    )
