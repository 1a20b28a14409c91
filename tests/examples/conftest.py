"""What is fine-tuned: a tiny encoder with film reviews, and the flags of a short training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training import WORDS, rated, tiny_config, write_archive
from transformers import BertModel, BertTokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random encoder, its tokenizer and 64 training sentences' data."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    BertModel(tiny_config()).save_pretrained(folder)
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}).save_pretrained(folder)
    write_archive(folder, rated(1064))
    return folder


@pytest.fixture
def flags(tiny: Path) -> Callable[..., list[str]]:
    """Flags of two epochs of two steps, with more added."""

    def of(output: Path, *more: str) -> list[str]:
        fixed = f"--task_name Film-Reviews --data_dir {tiny} --bert_model {tiny} --output_dir {output}"
        size = "--max_seq_length 16 --eval_batch_size 500 --num_train_epochs 2 --learning_rate 1e-2 --no_cuda"
        return [*fixed.split(), *size.split(), *more]

    return of
