"""The survey of families: one of each kind here, the whole by `python tests/family_survey.py`, its page in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from families import FAMILIES
from family_survey import OUTCOMES, Row, survey, table
from tiny_families import exists

PAGE = Path(__file__).parents[2] / "docs" / "family_survey.md"

KINDS: dict[str, str] = {
    "deepseek_v3": "latent keys and values",
    "qwen3_next": "linear attention beside full attention",
    "jamba": "Mamba blocks beside attention",
    "afmoe": "a gate behind attention that needs contiguous tensors",
    "fsmt": "heads and examples in one dimension",
    "falcon": "torch's fused attention, called by the model",
    "qwen2_vl": "text and images, asked about text",
    "layoutlmv3": "words with boxes",
    "convbert": "another softmax beside that of attention",
    "deformable_detr": "softmax over sampled points beside attention",
    "qwen2_5_vl_vision": "all images packed in one sequence, whose ends are given",
    "pixtral": "all images packed in one sequence, with a mask",
    "clip": "text and images, both towers",
}
REASONS: dict[str, str] = {
    "diffllama": "computes attention 2 times in one forward",
    "hrm_text": r"a layer that the model itself runs again",
    "paligemma": "eager and fused attention of this family differ",
    "pegasus_x": "its attention is local to blocks",
    "longformer": "its attention is windowed",
}


def surveyed(family: str) -> Row:
    """The survey of a family that this release of transformers has."""
    if not exists(family):
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    return survey(family)


@pytest.mark.parametrize("family", KINDS, ids=lambda family: f"{family}: {KINDS[family]}")
def test_one_of_each_kind(family: str) -> None:
    row = surveyed(family)
    assert (row.outcome, row.masked) == ("attributed", True), row


@pytest.mark.parametrize("family", REASONS)
def test_what_cannot_be_attributed_is_refused_with_its_reason(family: str) -> None:
    row = surveyed(family)
    assert row.outcome == "refused"
    assert re.search(REASONS[family], row.detail)


def test_a_model_without_attention_has_none() -> None:
    assert survey("mamba").outcome == "no attention"


NAMED = (
    *("gemma3n_text", "qwen2_vl", "jamba", "bamba", "nemotron_h", "deepseek_v2", "deepseek_v3"),
    *("glm4_moe_lite", "qwen3_next", "qwen3_5_text", "llama4", "gemma4_text", "olmo3", "ernie4_5", "apertus"),
    *("hunyuan_v1_dense", "convbert", "layoutlmv3", "data2vec-text", "data2vec-vision", "data2vec-audio", "blip-2"),
)


def test_page_has_every_family_of_the_readme_and_none_is_broken() -> None:
    found = re.findall(r"^\| (\S+) \| \S* \| ([a-z ]+) \|", PAGE.read_text(), flags=re.M)
    outcomes = {family: outcome for family, outcome in found if outcome in OUTCOMES}
    assert len(outcomes) > 600
    assert "broken" not in outcomes.values()
    assert {family: outcomes[family] for family in NAMED} == dict.fromkeys(NAMED, "attributed")
    for family in FAMILIES:
        if family.route == "refused" or family.name.endswith(("(vision)", "(text)")):
            continue  # parts of composite models
        assert outcomes[family.build().config.model_type] == "attributed", family.name


def test_page_counts_and_says_what_was_not_tried() -> None:
    rows = [
        Row("bert", "attributed", "A", layers="3 decoder", masked=True),
        Row("b", "not built", detail="needs | timm"),
    ]
    page = table([*rows, Row("c", "refused", "C", "windowed")])
    assert "3 families; 2 with attention that could be run: 1 attributed (1 masked, 1 pruned), 1 refused" in page
    assert "| bert | A | attributed | yes | yes | 3 decoder |" in page
    assert "| b |  | not built |  |  | needs \\| timm |" in page
