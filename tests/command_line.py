"""The scripts of examples/ as a user runs them, and a tiny model with data in the published code's formats."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import VOCAB, WORDS, tiny_bert
from transformers import PreTrainedModel

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT.parent / "shared/data/reference"
LABELS = ("contradiction", "entailment", "neutral")
COLUMNS = ("index", *("x1", "x2", "x3", "x4", "x5", "x6", "x7"), "sentence1", "sentence2", "label1", "gold_label")
ROWS = 9

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"the published code's output is not at hand: no {REFERENCE}"
)


def write_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join([*("[PAD]", "[UNK]", "[CLS]", "[SEP]"), *WORDS][:VOCAB]) + "\n")


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model with its vocabulary in `model`, and its weights in `model.bin`."""
    model.save_pretrained(folder / "model")
    torch.save(model.state_dict(), folder / "model.bin")
    write_vocabulary(folder / "model")
    (folder / "model/tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def write_mnli(folder: Path) -> Path:
    """Write a tiny BERT in `model` (and its weights in `model.bin`), MNLI-shaped rows in `data`."""
    write_model(tiny_bert(seed=1), folder)
    rows = ["\t".join(COLUMNS)]
    for i in range(ROWS):
        first, second = " ".join(WORDS[i : i + 2 + i % 3]), " ".join(WORDS[-1 - i % 4 :])
        rows.append("\t".join([str(i), *"xxxxxxx", first, second, "n", LABELS[i % 3]]))
    (folder / "data").mkdir()
    (folder / "data/dev_matched.tsv").write_text("\n".join(rows) + "\n")
    return folder


def flags(folder: Path, output: Path, /, **changes: Any) -> list[str]:
    """Return the published code's flags for that model and data; None leaves one out, True gives it no value."""
    given = {
        "task_name": "MNLI",
        "data_dir": folder / "data",
        "bert_model": folder / "model",
        "model_file": folder / "model.bin",
        "output_dir": output,
    } | changes
    line: list[str] = []
    for name, value in given.items():
        line += [] if value is None else [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line


def run(script: str, *line: Any, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script in a new process, or in several."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / "examples" / script), *map(str, line)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def run_here(script: str, line: Sequence[str]) -> int:
    """Run a script in this process, which has loaded everything already; return the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(ROOT / "examples" / script), *line])
        try:
            runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0
