"""examples/explain_image.py on tiny models and pictures made here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import PIL.Image
import pytest
from seeing import classifier, clip, llava, pictures, processor

from captum_attattr import Explanation, ImageExplanation

SCRIPT = Path(__file__).parents[2] / "examples/explain_image.py"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "'LABEL_"),
        ("--text good", "'good', score"),
        ("--text good --text bad", "probability"),
        ("--prompt good --target film", "'film', probability"),
    ],
)
def test_pictures_become_pages(tmp_path, monkeypatch, capsys, flags, said):
    model, reading = clip() if "--text" in flags else llava() if flags else (classifier(), processor())
    model.save_pretrained(tmp_path / "model")
    reading.save_pretrained(tmp_path / "model")
    for i, pixels in enumerate(pictures()):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    spec = importlib.util.spec_from_file_location("explain_image", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = tmp_path / "page.html"
    given = [*flags.split(), "--model", str(tmp_path / "model"), "--output", str(page), "--nodes", "2"]
    monkeypatch.setattr(sys, "argv", ["explain_image.py", str(tmp_path / "0.png"), str(tmp_path / "1.png"), *given])
    try:
        script.main()
    except ImportError as error:  # of older releases of transformers
        if "Torchvision" not in str(error):
            raise
        pytest.skip(f"{str(error).strip():.70}")
    told = capsys.readouterr().out
    assert said in told
    assert told.count(".png: ") == 2
    assert "rank correlation of score and effect" in told
    assert page.read_text("utf-8").count('class="plain"') == 2
    assert 'class="plain"' in page.with_suffix(".report.html").read_text("utf-8")
    found = Explanation.load(page.with_suffix(".safetensors"))
    assert isinstance(found, ImageExplanation)
    assert found.grid == (3, 3)
