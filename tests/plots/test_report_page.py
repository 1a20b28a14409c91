"""The report: what it says is what the numbers say, harmless, offline, small; everything in it is linked."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import results
import torch
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE, Page
from PIL import Image
from results import importance

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.plots.report_page import write_report


def explanation(layers: int = 3, heads: int = 4, words: int | list[str] = 8, **changed: Any) -> Explanation:
    names = words if isinstance(words, list) else ["[CLS]", *(f"word{i}" for i in range(1, words - 1)), "[SEP]"]
    return results.explanation(layers, heads, names, **changed)


def told(path: Path, what: str) -> str:
    """The visible text of the elements of a class, or of the details."""
    text = path.read_text(encoding="utf-8")
    pattern = r"<details>(.*?)</details>" if what == "details" else rf'<(\w+) class="{what}"[^>]*>(.*?)</\1>'
    part = re.search(pattern, text, re.DOTALL)
    assert part
    return " ".join(html.unescape(re.sub("<[^>]*>", "", part.groups()[-1])).split())


def data(path: Path) -> Any:
    found = re.search('<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def links_only(*links: tuple[int, int, int, int, float], tokens: int | list[str] = 6) -> Explanation:
    """An explanation of a few entries: (layer, head, query, key, score)."""
    size = tokens if isinstance(tokens, int) else len(tokens)
    maps = torch.zeros(3, 4, size, size)
    for layer, head, query, key, score in links:
        maps[layer, head, query, key] = score
    return explanation(3, 4, tokens, attributions=maps, attention=torch.full((3, 4, size, size), 1 / size))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = explanation(3, 4, HOSTILE, label=HOSTILE[0], text=(HOSTILE[1], HOSTILE[8]), prediction=0)
    return write_report(given, tmp_path_factory.mktemp("reports") / "hostile.html", title=HOSTILE[0])


# ------------------------------------------------------------------------------------------------ the page


def test_special_tokens_are_told_by_token_where_words_have_several(tmp_path: Path) -> None:
    given = explanation(words=["[CLS]", "play", "##ing", "##s", "is", "[SEP]"])
    assert data(write_report(given, tmp_path / "report.html"))["special"] == [True, *[False] * 4, True]


def test_the_first_line_is_the_decision_and_the_text_reads_as_it_is(tmp_path: Path) -> None:
    path = write_report(explanation(), tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    text = path.read_text(encoding="utf-8")
    assert "<h1>The model says <b><bdi>positive</bdi></b> (probability 0.875)</h1>" in text
    assert told(path, "sentence") == "[CLS] word1 word2 word3 word4 word5 word6 [SEP]"
    assert "<title>Self-attention attribution: positive, probability 0.875</title>" in text
    ids = [attributes["id"] for _, attributes in Page(text).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    other = write_report(explanation(prediction=0), tmp_path / "other.html").read_text("utf-8")
    assert "The model does not choose <b><bdi>positive</bdi></b> (target 1), which is explained here" in other


@pytest.mark.parametrize(
    ("links", "tokens", "findings"),
    [
        (
            [(2, 1, 0, 3, 0.3), (0, 0, 4, 3, 0.15), (1, 2, 2, 4, 0.01)],
            6,
            "Mostly “word3” +0.15: [CLS] read it in layer 2 (+0.3), “word4” read it in layer 0 (+0.15). "
            "No word clearly speaks against it.",
        ),
        (
            [(2, 1, 0, 1, 0.3), (2, 0, 0, 2, 0.3), (2, 0, 0, 3, -0.3)],
            6,
            "Mostly “word1” +0.1: [CLS] read it in layer 2 (+0.3). Against it: “word3” −0.1. "
            "The strongest link against it: [CLS] read “word3” in layer 2 (−0.3).",
        ),
        (
            [(2, 1, 0, i, 0.3) for i in range(1, 8)],
            9,
            "Spread over many words, of which these have 43 %: “word1” +0.1: [CLS] read it in layer 2 (+0.3); "
            "“word2” +0.1: [CLS] read it in layer 2 (+0.3); “word3” +0.1: [CLS] read it in layer 2 (+0.3). "
            "No word clearly speaks against it.",
        ),
        (
            [(2, 1, 0, 1, 0.3), (2, 1, 0, 3, 0.3), (0, 1, 0, 2, 0.1)],
            ["[CLS]", "good", "film", "Good", "[SEP]"],
            "Mostly “good” (2 times) +0.2: [CLS] read it in layer 2 (+0.3), [CLS] read it in layer 2 (+0.3). "
            "No word clearly speaks against it.",
        ),
        (
            [(2, 1, 0, 1, 0.3), (0, 1, 3, 2, 0.2)],
            ["[CLS]", "play", "##ing", "film", "[SEP]"],
            "Mostly “playing” +0.167: [CLS] read it in layer 2 (+0.3), “film” read it in layer 0 (+0.2). "
            "No word clearly speaks against it.",
        ),
        (
            [(1, 1, 0, 4, 0.3), (1, 2, 2, 2, 0.03)],
            5,
            "Mostly [SEP] +0.1: [CLS] read it in layer 1 (+0.3). No word clearly speaks against it.",
        ),
        (
            [(1, 1, 1, 1, 0.3)],
            5,
            "Mostly “word1” +0.1: “word1” read itself in layer 1 (+0.3). No word clearly speaks against it.",
        ),
        (  # of words that are equal one reads the other, and itself
            [(1, 1, 4, 4, 0.6), (1, 2, 4, 2, 0.3), (0, 0, 1, 2, 0.01)],
            ["[CLS]", "they", "drink", "what", "drink", "[SEP]"],
            "Mostly “drink” (2 times) +0.303: “drink” read itself in layer 1 (+0.6), “drink” read it in layer 1 "
            "(+0.3). No word clearly speaks against it.",
        ),
        (
            [(1, 1, 2, 1, -0.3)],
            5,
            "No word speaks for it. Mostly against it: “word1” −0.1: “word2” read it in layer 1 (−0.3).",
        ),
        (  # its word has no tint, but of all links only one is stronger
            [(2, 1, 0, 1, 0.9), (1, 0, 0, 2, -0.1), (0, 0, 0, 2, 0.1)],
            5,
            "Mostly “word1” +0.3: [CLS] read it in layer 2 (+0.9). No word clearly speaks against it. "
            "The strongest link against it: [CLS] read “word2” in layer 1 (−0.1).",
        ),
        (  # many are stronger, and it is no quarter of the strongest
            [(2, 1, 0, i, 0.9) for i in range(1, 12)] + [(1, 0, 0, 2, -0.2)],
            14,
            "Spread over many words, of which these have 28 %: “word1” +0.3: [CLS] read it in layer 2 (+0.9); "
            "“word3” +0.3: [CLS] read it in layer 2 (+0.9); “word4” +0.3: [CLS] read it in layer 2 (+0.9). "
            "No word clearly speaks against it.",
        ),
        (  # a hundredth of the strongest is nothing to tell
            [(2, 1, 0, 1, 0.9), (1, 0, 0, 2, -0.009)],
            5,
            "Mostly “word1” +0.3: [CLS] read it in layer 2 (+0.9). No word clearly speaks against it.",
        ),
        (  # the strongest link is not that of the strongest word
            [(2, 1, 0, 1, 0.3), (1, 1, 0, 1, 0.3), (1, 1, 2, 1, 0.3), (0, 0, 0, 2, 0.4)],
            5,
            "Mostly “word1” +0.3: [CLS] read it in layer 1 (+0.3), “word2” read it in layer 1 (+0.3). "
            "No word clearly speaks against it. "
            "The strongest link for it: [CLS] read “word2” in layer 0 (+0.4).",
        ),
        (
            [(2, 1, 0, 1, -0.9), (1, 1, 0, 2, 0.3)],
            5,
            "For it: “word2” +0.1. Mostly against it: “word1” −0.3: [CLS] read it in layer 2 (−0.9). "
            "The strongest link for it: [CLS] read “word2” in layer 1 (+0.3).",
        ),
        (
            [(2, 1, 0, 1, 0.3)],
            ["[CLS]", "x" * 60, "[SEP]"],
            f"Mostly “{'x' * 39}…” +0.1: [CLS] read it in layer 2 (+0.3). No word clearly speaks against it.",
        ),
        ([], 5, "Nothing to tell: the attributions of all heads are 0, or cancel out."),
    ],
)
def test_findings_are_words_made_of_the_numbers(links: Any, tokens: Any, findings: str, tmp_path: Path) -> None:
    path = write_report(links_only(*links, tokens=tokens), tmp_path / "report.html")
    assert told(path, "findings") == findings
    seen = look(path, "", tmp_path)  # whatever there is to tell, the page works
    assert seen["figures"] == 1


@pytest.mark.parametrize(
    ("changed", "certainty"),
    [
        (
            {"error": [0.5, 0.25, torch.nan], "delta": [0.5, -0.25, 0.0]},
            "Take these numbers as rough: the estimated error of the worst layer's map is 50 %; each layer adds up to "
            "what its attention did within 0.5 (50 % of the largest score of a token in a layer). "
            "What helps: a smaller tolerance= or larger max_nodes=.",
        ),
        (
            {"error": [torch.nan] * 3, "delta": [0.0, 0.0, -0.25]},
            "Take these numbers as rough: the error was not estimated; each layer adds up to what its attention did "
            "within 0.25 (25 % of the largest score of a token in a layer). "
            "What helps: a larger n_steps=, or in explain() none, which finds it.",
        ),
        (
            {"error": [0.001] * 3, "delta": [0.0, 1e30, 0.0]},
            "Take these numbers as rough: the estimated error of the worst layer's map is 0.1 %; each layer adds up to "
            "what its attention did within 1e+30 (more than 1000 % of the largest score of a token in a layer). "
            "What helps: a smaller tolerance= or larger max_nodes=.",
        ),
        (
            {"error": [torch.nan] * 3, "delta": [0.0, 0.0, -0.08]},
            "How exact: the error was not estimated; each layer adds up to what its attention did within 0.08 "
            "(8 % of the largest score of a token in a layer).",
        ),
        (
            {"error": [0.000999, 0.0001, 0.0], "delta": [2.95e-5, 0.0, 0.0]},
            "How exact: to 0.1 %, the estimated error of the worst layer's map; "
            "each layer adds up to what its attention did within 0.00003.",
        ),
        (
            {"error": [1e-9, 0.0, 0.0], "delta": [-1e-9, 0.0, 0.0]},
            "How exact: to less than 0.001 %, the estimated error of the worst layer's map; "
            "each layer adds up to what its attention did within 0.000001.",
        ),
        ({"error": [torch.nan] * 3, "delta": [torch.nan] * 3}, "How exact: the error was not estimated."),
        (
            {"error": [torch.nan] * 3, "delta": [torch.nan] * 3, "nodes": [0] * 3},
            "How exact: this method has no error to estimate, and its scores need not add up to anything.",
        ),
        (
            {"error": [torch.inf, 0, 0], "delta": [torch.nan] * 3},
            "Take these numbers as rough: the estimated error of the worst layer's map is not bounded. "
            "What helps: a smaller tolerance= or larger max_nodes=.",
        ),
    ],
)
def test_certainty_is_said_in_words_below_the_first_line(changed: Any, certainty: str, tmp_path: Path) -> None:
    maps = torch.zeros(3, 4, 8, 8)
    maps[:, 0, 0, :2] = torch.tensor([1.0, -0.5])
    given = explanation(attributions=maps, **{name: torch.tensor(value) for name, value in changed.items()})
    path = write_report(given, tmp_path / "report.html")
    rough = certainty.startswith("Take")
    assert told(path, "certainty rough" if rough else "certainty") == certainty
    assert re.search(r"</h1>\s*<p class=\"certainty", path.read_text("utf-8"))


def test_the_first_token_of_a_decoder_is_told_as_where_attention_rests(tmp_path: Path) -> None:
    maps = torch.zeros(3, 4, 4, 4)
    maps[2, 1, 3, 0], maps[2, 1, 3, 2] = 0.6, -0.06
    tokens = ["The", "cat", "the", "of"]
    given = explanation(3, 4, tokens, attributions=maps, attention=torch.ones(3, 4, 4, 4).tril(), special=[False] * 4)
    assert told(write_report(given, tmp_path / "report.html"), "findings") == (
        "Mostly “The” +0.2 (the first token, where attention rests): “of” read it in layer 2 (+0.6). "
        "No word clearly speaks against it. The strongest link against it: “of” read “the” in layer 2 (−0.06)."
    )


def test_a_long_text_is_set_smaller_and_leaves_the_findings_in_sight(clocked: Clocked, tmp_path: Path) -> None:
    for words, size in ((40, "23px"), (150, "17px")):
        clocked.open(write_report(explanation(2, 2, words), tmp_path / "report.html"))
        assert clocked.run("getComputedStyle(document.querySelector('.sentence')).fontSize") == size
        assert clocked.run("document.querySelector('.findings').getBoundingClientRect().top") < 500  # of 800


def test_words_are_tinted_by_their_scores(tmp_path: Path) -> None:
    given = links_only((2, 1, 0, 3, 0.3), (0, 0, 4, 2, -0.15), (1, 0, 4, 1, 0.003))
    text = write_report(given, tmp_path / "report.html").read_text("utf-8")
    styles = dict(re.findall(r'data-word="(\d+)" style="([^"]*)"', text))
    assert styles["3"] == "--share:1.000;--tint:var(--for)"
    assert styles["2"] == "--share:0.500;--tint:var(--against)"
    assert styles["1"] == ""  # a hundredth of the largest is nothing to see
    assert 'title="word3: +0.1"' in text
    assert "<span>against −0.1</span>" in text
    assert "<span>+0.1 for, in points of the probability</span>" in text


def test_details_tell_text_value_and_the_numbers_of_each_layer(tmp_path: Path) -> None:
    given = explanation(error=torch.tensor([0.5, 0.25, torch.nan]), delta=torch.tensor([0.5, -0.25, 0.0]), prediction=0)
    text = told(write_report(given, tmp_path / "report.html"), "details")
    sums = [f"{float(each.sum(dtype=torch.float64)):+.3g}".replace("-", "−") for each in given.attributions]
    for part in ("a text of words", "positive (target 1)", "probability 0.875", "target 0", *sums):
        assert part in text
    for row in (["0", sums[0], "+0.5", "0.5", "9"], ["2", sums[2], "+0", "not estimated", "9"]):
        assert "".join(row) in text


def test_data_are_the_explanations(tmp_path: Path) -> None:
    given = explanation(3, 4, 30)
    found = data(write_report(given, tmp_path / "report.html"))
    sums = given.attributions.double().sum(1).numpy()
    index, score = np.array(found["links"]["index"]), np.array(found["links"]["score"])
    assert len(index) == min(1500, (sums != 0).sum())
    np.testing.assert_allclose(score, sums.ravel()[index], rtol=1e-5)
    assert (np.diff(np.abs(score)) <= 1e-12).all()
    assert np.abs(score[-1]) >= np.sort(np.abs(sums), axis=None)[-1501]
    assert found["total"] == pytest.approx(np.abs(sums).sum())
    np.testing.assert_allclose(found["scores"][-1], given.token_scores(), rtol=2e-3, atol=1e-9)
    largest = given.attributions.amax((2, 3)).flatten()
    np.testing.assert_allclose(found["importance"][0]["scores"], largest, rtol=1e-5)


def test_report_asks_for_nothing(hostile_report: Path, tmp_path: Path) -> None:
    page = Page(hostile_report.read_text(encoding="utf-8"))
    loading = ("src", "href", "srcset", "action", "poster", "background")
    asked = [(tag, attributes[name]) for tag, attributes in page.elements for name in loading if name in attributes]
    assert asked == [("link", "data:,")]
    harmless = write_report(explanation(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in harmless.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_hostile_tokens_make_no_element(hostile_report: Path, tmp_path: Path) -> None:
    given = explanation(3, 4, [f"t{i}" for i in range(len(HOSTILE))], text=("first", "second"), prediction=0)
    harmless = write_report(given, tmp_path / "harmless.html", title="title")
    tags = [[tag for tag, _ in Page(path.read_text("utf-8")).elements] for path in (hostile_report, harmless)]
    tags = [[tag for tag in each if tag not in ("button", "bdi")] for each in tags]  # of the findings, by the scores
    assert tags[0] == tags[1]
    text = told(hostile_report, "sentence")
    for part in (*HOSTILE[:2], HOSTILE[4], HOSTILE[5], HOSTILE[7], HOSTILE[9], HOSTILE[11], "\\u202eturned"):
        assert part in text
    for part in ("two↵lines↵and⇥tab", "half \\ud800 pair", "nul \\u0000 bell \\u0007", "∅", "␣␣"):
        assert part in text


def test_same_explanation_same_bytes(tmp_path: Path) -> None:
    pages = [write_report(explanation(), tmp_path / name).read_bytes() for name in ("one.html", "two.html")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("layers", "heads", "tokens", "megabytes"), [(6, 12, 18, 0.3), (6, 12, 200, 5), (12, 12, 128, 6), (2, 2, 600, 1.5)]
)
def test_reports_are_small(layers: int, heads: int, tokens: int, megabytes: float, tmp_path: Path) -> None:
    path = write_report(explanation(layers, heads, tokens), tmp_path / "report.html")
    assert path.stat().st_size <= megabytes * 1e6


# --------------------------------------------------------------------------------------------- the options


def test_empty_tree_is_said_in_words_with_the_threshold_that_gives_an_edge(tmp_path: Path) -> None:
    attributions = torch.zeros(3, 1, 4, 4)
    attributions[:, 0, 3, 3] = 1.0  # the largest is a token's own
    attributions[1, 0, 1, 2] = 0.25
    given = explanation(3, 1, 4, attributions=attributions, attention=torch.full((3, 1, 4, 4), 0.25))
    path = write_report(given, tmp_path / "report.html")
    trees = {each["threshold"]: each for each in data(path)["trees"]}
    assert trees[0.4]["links"] == []
    assert "threshold=0.4 leaves no edge" in trees[0.4]["why"]
    assert "one below 0.25 would give the first edge" in trees[0.4]["why"]
    assert [1, 1, 2, 0.25] in trees[0.2]["links"]
    seen = look(path, f"{TREE} seen.warning = document.getElementById('warning').textContent;", tmp_path)
    assert "one below 0.25 would give the first edge" in seen["warning"]


TREE = "document.querySelector('input[value=tree]').click(); await wait();"


def test_threshold_is_the_trees(tmp_path: Path) -> None:
    path = write_report(explanation(), tmp_path / "report.html", threshold=0.33)
    assert data(path)["threshold"] == 0.33
    seen = look(path, f"{TREE} seen.count = document.getElementById('count').textContent;", tmp_path)
    links = next(each["links"] for each in data(path)["trees"] if each["threshold"] == 0.33)
    assert seen["count"] == f"0.33: {len(links)} links"


def test_heads_show_the_given_importance(tmp_path: Path) -> None:
    given = explanation()
    maps = {HOSTILE[0]: importance(3, 4), "second": importance(3, 4, "taylor")}
    path = write_report(given, tmp_path / "report.html", importance=maps)
    names = [each["name"] for each in data(path)["importance"]]
    assert names == [HOSTILE[0], "second"]
    steps = """
      const name = () => document.querySelector("#heads button").getAttribute("aria-label");
      seen.first = name();
      const choice = document.getElementById("scores");
      choice.selectedIndex = 1;
      choice.dispatchEvent(new Event("change"));
      seen.second = name();
    """
    seen = look(path, steps, tmp_path)
    assert seen["first"].startswith(f"layer 2, head 0: {HOSTILE[0]} +")
    assert seen["second"].startswith("layer 2, head 0: second +")


def test_heads_that_are_gone_have_no_score(tmp_path: Path) -> None:
    given = explanation()
    given.attributions[1, 2] = given.attention[1, 2] = 0
    path = write_report(given, tmp_path / "report.html")
    assert data(path)["importance"][0]["scores"][6] is None
    seen = look(path, "seen.gone = document.querySelectorAll('#heads .gone').length;", tmp_path)
    assert seen["gone"] == 1


def test_regression_score_is_no_probability(tmp_path: Path) -> None:
    path = write_report(explanation(probability=-3.2, output="score"), tmp_path / "report.html")
    assert "(score −3.2)</h1>" in path.read_text("utf-8")
    assert "in points of the score" in told(path, "scale")


def test_what_is_not_known_is_said_in_words(tmp_path: Path) -> None:
    given = explanation(probability=float("nan"), delta=torch.full((3,), torch.nan))
    path = write_report(given, tmp_path / "report.html")
    assert "<title>Self-attention attribution: positive</title>" in path.read_text("utf-8")
    assert told(path, "details").count("not known") == 1 + 3


# ---------------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("changed", "options", "error", "message"),
    [
        ({}, {"threshold": 1.5}, ValueError, "threshold=1.5 must be a number from 0"),
        ({}, {"threshold": -0.1}, ValueError, "threshold=-0.1 must be a number from 0"),
        ({}, {"title": 3}, TypeError, "title must be a string, not int: 3"),
        ({}, {"importance": "attattr"}, TypeError, "importance must be a HeadImportance, .* not str"),
        ({}, {"importance": importance(2, 4)}, ValueError, r"that of \(2, 4\) layers and heads, .* has \(3, 4\)"),
        ({"tokens": ["a"]}, {}, ValueError, "attributions must be 1 x 1 for 1 token, not 8 x 8"),
        ({"delta": torch.zeros(2)}, {}, ValueError, r"delta must have the shape \(3,\), not \(2,\)"),
        ({"attributions": torch.full((3, 4, 8, 8), torch.nan)}, {}, ValueError, "must be finite"),
        ({"special": [False]}, {}, ValueError, r"special must have the shape \(8,\), not \(1,\)"),
        ({"nodes": torch.ones(2)}, {}, ValueError, r"nodes must have the shape \(3,\), not \(2,\)"),
        ({"probability": float("inf")}, {}, ValueError, "probability must be finite, not inf"),
    ],
)
def test_wrong_input_leaves_no_file(
    changed: dict[str, Any], options: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write_report(explanation(**changed), tmp_path / "report.html", **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_explanation_and_path(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="explanation must be an Explanation, not list: \\[\\]"):
        write_report([], tmp_path / "report.html")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"directory .*nowhere does not exist"):
        write_report(explanation(), tmp_path / "nowhere" / "report.html")
    with pytest.raises(TypeError, match="path must be a string or a path, not int: 3"):
        write_report(explanation(), 3)  # type: ignore[arg-type]


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail_midway(self: Path, data: str, **_: Any) -> None:
        self.write_bytes(data.encode()[:1000])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", fail_midway)
    with pytest.raises(OSError, match="no space left"):
        write_report(explanation(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------------------- the browser

ALL = """({
  word: document.querySelector(".sentence .on")?.textContent ?? null,
  told: document.getElementById("told").textContent,
  count: document.getElementById("count").textContent,
  map: document.getElementById("map-name").textContent,
  lit: [...document.querySelectorAll("#heads .lit")].map((each) => each.dataset.head),
  pressed: [...document.querySelectorAll("#heads [aria-pressed=true]")].map((each) => each.dataset.head),
  bright: [...document.querySelectorAll(".link:not(.dim)")].map((each) => each.dataset.link).sort(),
  links: document.querySelectorAll(".link").length,
  hash: location.hash,
})"""


def middle(selector: str) -> str:
    return f"""(() => {{
      const {{ left, top, width, height }} = document.querySelector({selector!r}).getBoundingClientRect();
      return [left + width / 2, top + height / 2]; }})()"""


def test_a_choice_shows_everywhere_and_empty_space_resets(clocked: Clocked, tmp_path: Path) -> None:
    given = links_only((2, 1, 0, 3, 0.3), (2, 3, 0, 3, 0.1), (0, 0, 4, 3, 0.15), (1, 2, 2, 4, -0.05), tokens=8)
    clocked.open(write_report(given, tmp_path / "report.html"))
    start = clocked.until(ALL, lambda seen: seen["map"].startswith("layer 2, head 1"))
    assert start["count"] == "3 links, 100 % of all attribution"
    assert start["bright"] == ["0,4,3", "1,2,4", "2,0,3"]

    clocked.click(*clocked.run(middle('.sentence [data-word="3"]')))
    seen = clocked.until(ALL, lambda seen: seen["word"] is not None)
    assert seen["told"] == (
        "“word3” counts +0.183. It gave to: [CLS] in layer 2 +0.4, “word4” in layer 0 +0.15. "
        "It took from: nothing strong."
    )
    assert seen["bright"] == ["0,4,3", "2,0,3"]
    assert "word=3" in seen["hash"]
    clocked.click(*clocked.run(middle("#picture svg .column")))  # empty space
    assert clocked.until(ALL, lambda seen: seen["word"] is None)["bright"] == start["bright"]

    clocked.click(*clocked.run(middle('.phrase[data-link="2,0,3"]')))
    seen = clocked.until(ALL, lambda seen: seen["lit"])
    assert seen["lit"] == ["9", "11"]  # the heads that make the link: 1 and 3 of layer 2
    assert seen["told"].startswith("[CLS] read “word3” in layer 2: +0.4 (head 1 +0.3, head 3 +0.1)")
    assert seen["bright"] == ["2,0,3"]
    clocked.press("Escape")
    clocked.until(ALL, lambda seen: seen["bright"] == start["bright"] and not seen["lit"])

    clocked.click(*clocked.run(middle('#heads [data-head="6"]')))
    seen = clocked.until(ALL, lambda seen: seen["pressed"] == ["6"])
    assert seen["map"] == "layer 1, head 2"
    assert (seen["bright"], seen["count"]) == (["1,2,4"], "1 links, of head 2 in layer 1")
    again = write_report(given, tmp_path / "again.html").as_uri() + seen["hash"]
    clocked.ask("Page.navigate", url=again)  # the address reproduces it
    clocked.until(ALL, lambda seen: seen["pressed"] == ["6"] and seen["bright"] == ["1,2,4"])


def test_the_mouse_over_a_link_tells_it_and_lights_its_heads(clocked: Clocked, tmp_path: Path) -> None:
    given = links_only((2, 1, 0, 3, 0.3), (0, 0, 4, 3, 0.15), tokens=8)
    clocked.open(write_report(given, tmp_path / "report.html"))
    clocked.until(ALL, lambda seen: seen["map"].startswith("layer 2, head 1"))
    place = """(() => { const path = document.querySelector('[data-link="0,4,3"] .hit');
      const { x, y } = path.getPointAtLength(path.getTotalLength() / 2);
      const { left, top } = path.ownerSVGElement.getBoundingClientRect(); return [left + x, top + y]; })()"""
    x, y = clocked.run(place)
    clocked.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = "(() => { const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent; })()"
    text = clocked.until(tip, bool)
    assert text.startswith("“word4” read “word3” in layer 0: +0.15 (head 0 +0.15)")
    assert clocked.run(ALL)["lit"] == ["0"]
    clocked.ask("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    clocked.until(tip, lambda text: text == "")


def test_keys_alone_are_enough(clocked: Clocked, tmp_path: Path) -> None:
    clocked.open(write_report(explanation(), tmp_path / "report.html"))
    focus = "(document.activeElement.id || document.activeElement.dataset.word || document.activeElement.dataset.head "
    focus += "|| document.activeElement.name || document.activeElement.tagName)"
    order = []
    for _ in range(60):
        clocked.press("Tab")
        clocked.run("1")
        order.append(clocked.run(focus))
    for each in ("0", "mode", "cut", "layer", "reset"):
        assert each in order
    assert not {"1", "7"} & set(order)  # a long text would need as many keys as it has words
    assert order.index("cut") < order.index("layer") < order.index("reset")
    clocked.run("document.querySelector('#heads [tabindex=\"0\"]').focus()")
    before = int(clocked.run("document.activeElement.dataset.head"))
    clocked.press("ArrowRight" if before % 4 < 3 else "ArrowLeft")
    assert abs(int(clocked.run("document.activeElement.dataset.head")) - before) == 1
    clocked.run("document.querySelector('.sentence .word').focus()")
    for key, word in (("ArrowRight", "1"), ("End", "7"), ("ArrowRight", "7"), ("ArrowUp", "6"), ("Home", "0")):
        clocked.press(key)
        assert clocked.run(focus) == word
        assert clocked.run("document.querySelectorAll('.sentence [tabindex=\"0\"]').length") == 1
    clocked.press("Enter")
    clocked.until(ALL, lambda seen: seen["word"] == "[CLS]")


def test_arrow_keys_follow_a_text_that_runs_to_the_left(clocked: Clocked, tmp_path: Path) -> None:
    names = ["[CLS]", "هذا", "فيلم", "رائع", "[SEP]"]
    clocked.open(write_report(explanation(3, 4, names), tmp_path / "report.html"))
    clocked.run("document.querySelector('.sentence .word').focus()")
    clocked.press("ArrowLeft")
    assert clocked.run("document.activeElement.textContent") == names[1]


CONTRAST = """(() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (below, colour) => {
    canvas.fillStyle = below;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
    return `rgb(${r}, ${g}, ${b})`;
  };
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => channel(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const parents = [];
    for (let at = element; at; at = at.parentElement) parents.unshift(at);
    return parents.reduce((below, at) => over(below, getComputedStyle(at).backgroundColor), "rgb(255, 255, 255)");
  };
  const worst = [99, ""];
  for (const element of document.querySelectorAll("main *")) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!texts.length || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const back = ground(element);
    const colour = over(back, element.ownerSVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst.splice(0, 2, ratio, element.textContent.slice(0, 40));
  }
  return worst;
})()"""


@pytest.mark.parametrize("width", [1400, 1280, 768, 390])
def test_every_width_and_light_reads_well(width: int, clocked: Clocked, tmp_path: Path) -> None:
    path = write_report(explanation(3, 4, ["[CLS]", *HOSTILE, "[SEP]"]), tmp_path / "report.html")
    for scheme in ("light", "dark"):
        clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        clocked.ask("Emulation.setEmulatedMedia", media="screen", features=media)
        clocked.open(path)
        assert clocked.run("document.documentElement.scrollWidth") <= width
        ratio, text = clocked.run(CONTRAST)
        assert ratio >= 4.5, text
        shown = clocked.run("getComputedStyle(document.getElementById('picture')).display !== 'none'")
        assert shown == (width > 560)  # a phone has the sentence and the list of links
        assert clocked.run("document.querySelectorAll('#list button').length") == 12
    over = """(() => { const boxes = [...document.querySelectorAll("header > *, .tools, .views > *, details")]
      .map((each) => each.getBoundingClientRect()).filter(({ width, height }) => width && height);
      return boxes.some((a, i) => boxes.some((b, j) => j > i && a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1)); })()"""
    assert not clocked.run(over)


@pytest.mark.parametrize(
    ("changed", "framed"),
    [
        ({}, "In frames: special tokens ([CLS], [SEP]), added to what was given; the decision is read at [CLS]."),
        (
            {"words": ["<s>", "<user>", "a", "<end>", "<bot>"], "special": [True, True, False, True, True]},
            "In frames: special tokens (<s>, <user>, <end>, …), added to what was given; the decision is read at <s>.",
        ),
        ({"special": [False] * 8}, ""),
        ({"special": [False] * 7 + [True]}, "In frames: special tokens ([SEP]), added to what was given."),
    ],
)
def test_special_tokens_and_the_tree_are_explained_where_they_stand(
    changed: Any, framed: str, clocked: Clocked, tmp_path: Path
) -> None:
    clocked.open(write_report(explanation(**changed), tmp_path / "report.html"))
    for width in (1280, 390):
        clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        assert clocked.run("document.querySelector('.scale .framed')?.innerText ?? ''") == framed
        assert "follows the decision down" in clocked.run("document.getElementById('tree-key').innerText")
    assert "follows the decision down" in clocked.run("document.querySelector('label:has([value=tree])').title")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_what_is_chosen_is_told_in_sight(width: int, clocked: Clocked, tmp_path: Path) -> None:
    clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    clocked.open(write_report(explanation(words=40), tmp_path / "report.html"))
    for where in (".sentence .word:nth-child(3)", "#list li:nth-child(2) button"):
        clocked.run(f"document.querySelector('{where}').scrollIntoView({{ block: 'center' }})")
        top, bottom, below = clocked.run(f"""(() => {{
          const chosen = document.querySelector("{where}");
          const {{ bottom: below }} = chosen.getBoundingClientRect();
          chosen.click();
          const {{ top, bottom }} = document.getElementById("told").getBoundingClientRect();
          return [top, bottom, below];
        }})()""")
        if width < 900:  # else it is beside the picture, below the words
            assert top >= below
            assert bottom <= 800
        assert clocked.run("document.getElementById('told').textContent").startswith(("“", "["))
        clocked.press("Escape", 27)
    assert clocked.run("getComputedStyle(document.getElementById('told')).position") == "static"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_picture_is_saved_as_it_looks(
    hostile_report: Path, width: int, scheme: str, clocked: Clocked, tmp_path: Path
) -> None:
    clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    clocked.ask("Emulation.setEmulatedMedia", media="screen", features=media)
    clocked.open(hostile_report)
    (folder := tmp_path / "saved").mkdir()
    png = Image.open(io.BytesIO(clocked.downloads(folder, "document.getElementById('png').click()"))).convert("RGB")
    assert png.getpixel((2, 2)) == ((255, 255, 255) if scheme == "light" else (18, 22, 27))
    assert len(np.unique(np.asarray(png.resize((200, 100))).reshape(-1, 3), axis=0)) > 50  # lines, letters
    text = clocked.downloads(folder, "document.getElementById('svg').click()")
    drawn = ElementTree.fromstring(text)
    assert (2 * float(drawn.get("width", 0)), 2 * float(drawn.get("height", 0))) == png.size
    assert drawn.find(".//{*}script") is None
    assert drawn.find(".//{*}img") is None
    labels = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>bold</b>" in labels
    paths = [each.get("style", "") for each in drawn.iter("{http://www.w3.org/2000/svg}path")]
    assert sum("stroke-dasharray:7px, 4px" in style.replace("7, 4", "7px, 4px") for style in paths) > 3
    assert not any("stroke:rgba(0, 0, 0, 0)" in style for style in paths)  # what only the mouse finds


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_text_in_a_browser(hostile_report: Path, tmp_path: Path, dark: bool) -> None:
    steps = """
      for (const each of document.querySelectorAll(".sentence .word, .list button, .phrase")) each.click();
      document.querySelector("input[value=all]").click();
      document.querySelector("input[value=tree]").click();
      await wait();
      seen.words = document.querySelectorAll(".sentence .word").length;
    """
    assert look(hostile_report, steps, tmp_path, dark)["words"] == len(HOSTILE)


def test_columns_of_arabic_run_as_the_text_does(tmp_path: Path) -> None:
    names = ["[CLS]", "هذا", "فيلم", "رائع", "[SEP]"]
    steps = """
      seen.x = [...document.querySelectorAll("svg .name")].map((each) => [each.dataset.word, +each.getAttribute("x")]);
    """
    for words, falling in ((names, True), (["[CLS]", "a", "fine", "film", "[SEP]"], False)):
        path = write_report(explanation(3, 4, words), tmp_path / "report.html")
        x = [place for _, place in sorted((int(word), place) for word, place in look(path, steps, tmp_path)["x"])]
        assert (np.diff(x) < 0).all() == falling


def test_a_pair_has_a_divider_and_a_decoder_its_decision_at_the_end(tmp_path: Path) -> None:
    maps = torch.rand(3, 4, 6, 6)
    pair = explanation(3, 4, 6, attributions=maps, segments=[0, 0, 0, 1, 1, 1], special=[True, *[False] * 4, True])
    lower = maps.tril()
    decoder = explanation(3, 4, 6, attributions=lower, attention=lower, special=[True, *[False] * 5])  # <s> is special
    steps = """
      seen.dividers = document.querySelectorAll("svg .divider, .sentence .divider").length;
      seen.decision = +document.querySelector("svg .decision").getAttribute("cx");
      seen.x = [...document.querySelectorAll("svg .name")].map((each) => +each.getAttribute("x"));
    """
    of_pair = look(write_report(pair, tmp_path / "pair.html"), steps, tmp_path)
    assert of_pair["dividers"] == 2
    assert of_pair["decision"] == of_pair["x"][0]
    of_decoder = look(write_report(decoder, tmp_path / "decoder.html"), steps, tmp_path)
    assert of_decoder["dividers"] == 0
    assert of_decoder["decision"] == of_decoder["x"][-1]


def test_heads_are_chosen_without_attention_too(tmp_path: Path) -> None:
    path = write_report(explanation(attention=None), tmp_path / "report.html")
    steps = """
      seen.maps = [];
      for (const head of [3, 7]) {
        document.querySelector(`#heads [data-head="${head}"]`).click();
        seen.maps.push([document.getElementById("map-name").textContent, texts(".maps figure")[1]]);
      }
    """
    assert look(path, steps, tmp_path)["maps"] == [
        [f"layer {layer}, head 3", "The attention was not kept."] for layer in (0, 1)
    ]


def test_a_long_text_says_that_it_has_no_links_of_single_heads(clocked: Clocked, tmp_path: Path) -> None:
    clocked.open(write_report(explanation(2, 2, 300), tmp_path / "report.html"))
    seen = "(() => { const warning = document.getElementById('warning');"
    seen += " return [document.querySelectorAll('.link').length, warning.hidden ? '' : warning.textContent]; })()"
    clocked.until(seen, lambda seen: seen == [30, ""])
    clocked.run("document.querySelector('#heads button').click()")
    told = "Of so long a text the page has no links of single heads: these are of all heads together."
    clocked.until(seen, lambda seen: seen == [30, told])
    clocked.press("Escape", 27)
    clocked.until(seen, lambda seen: seen == [30, ""])


@pytest.mark.parametrize("heads", [64, 128])
def test_the_heads_of_a_wide_model_do_not_widen_the_page(heads: int, clocked: Clocked, tmp_path: Path) -> None:
    path = write_report(explanation(2, heads, 5), tmp_path / "report.html")
    for width in (1280, 390):
        clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        clocked.open(path)
        assert clocked.run("document.documentElement.scrollWidth") <= width
        seen = clocked.run("""(() => {
          const last = document.querySelector("#heads [role=row] button:last-child");
          last.focus();
          const { left, right, width } = last.getBoundingClientRect();
          return [width, left, right, document.querySelector("#heads").getBoundingClientRect().right];
        })()""")
        assert seen[0] >= 4
        assert 0 < seen[1] < seen[2] <= seen[3] <= width  # in sight, if need be by scrolling the strip alone


def test_a_head_is_chosen_in_less_than_a_tenth_of_a_second(clocked: Clocked, tmp_path: Path) -> None:
    clocked.open(write_report(explanation(6, 12, 200), tmp_path / "report.html"))
    clocked.until(ALL, lambda seen: seen["map"] != "a head")
    spent = """(() => { const times = [];
      for (const head of [3, 30, 60]) { const begin = performance.now();
        document.querySelector(`#heads [data-head="${head}"]`).click(); times.push(performance.now() - begin); }
      return Math.min(...times); })()"""
    assert clocked.run(spent) < 100
