"""A tiny encoder and a few film reviews, for what is fine-tuned in the tests of the scripts."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import run_classifier_orig
import torch
from common.command_line import run_script
from common.film_reviews import ARCHIVE
from device import place
from transformers import BertConfig, BertForSequenceClassification

QUERY = "bert.encoder.layer.0.attention.self.query"
WORDS = ("good", "bad", "film", "a", *"0123456789")


def tiny_config() -> BertConfig:
    return BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )


def tiny_model(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    model = BertForSequenceClassification(tiny_config())
    model.train(False)
    return place(model)


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.gz of the given files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_archive(folder: Path, lines: list[str]) -> Path:
    """A source distribution with the layout of vaderSentiment's."""
    inner = packed({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": "\r\n".join(lines).encode()})
    outer = packed({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner})
    (folder / ARCHIVE).write_bytes(outer)
    return folder / ARCHIVE


def rated(count: int) -> list[str]:
    """Lines of distinct sentences: "good" ones rated 2.0, "bad" ones -2.0."""
    return [
        f"{k}\t{2.0 if k % 2 else -2.0}\ta {'good' if k % 2 else 'bad'} film {' '.join(str(k))}" for k in range(count)
    ]


def fine_tune(flags: list[str]) -> None:
    """Run the script as its command does: what is wrong ends it with a line."""
    run_script(lambda: run_classifier_orig.main(flags))
