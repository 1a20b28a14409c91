"""In a browser, a report of some layers, without attention: menus and captions tell the layers' own numbers."""

from __future__ import annotations

from pathlib import Path

import results
from browser import look

from captum_attattr import plot_attention, plot_flow, write_html, write_report

FLOW = """
  seen.options = [...plot.querySelector(".flow-layer").options].map((each) => each.text);
  const menu = plot.querySelector(".flow-layer");
  menu.selectedIndex = 2;
  menu.dispatchEvent(new Event("change"));
  await wait();
  seen.caption = plot._fullLayout.annotations[0].text;
"""
MAPS = """
  for (const name of ["ArrowUp", "ArrowUp", "ArrowLeft", "ArrowDown"]) { key(plot, name); await wait(); }
  seen.chosen = document.getElementById("chosen").textContent;
"""
REPORT = """
  seen.rows = texts("#heads [role=rowheader]");
  seen.links = texts("#list button").join();
  seen.names = texts("svg .layer");
  document.querySelector("input[value=tree]").click();
  await wait();
  seen.tree = texts("#list button").join();
  seen.attention = texts(".maps figure")[1];
"""


def test_in_a_browser(tmp_path: Path) -> None:
    given = results.explanation(
        2, 3, ["[CLS]", *(f"word{i}" for i in range(6)), "[SEP]"], layers=[2, 5], attention=None
    )
    seen = look(write_html(plot_flow(given), tmp_path / "flow.html"), FLOW, tmp_path)
    assert seen["options"] == ["all layers", "layer 2", "layer 5"]
    assert "(layer 5, sum over heads)" in seen["caption"]
    seen = look(write_html(plot_attention(given), tmp_path / "maps.html"), MAPS, tmp_path)
    assert seen["chosen"] in ("layer 5, head 0", "layer 5, head 1")
    seen = look(write_report(given, tmp_path / "report.html"), REPORT, tmp_path)
    assert seen["rows"] == ["5", "2"]
    assert seen["names"] == ["layer 2", "layer 5"]
    for told in (seen["links"], seen["tree"]):
        assert "in layer 5" in told or "in layer 2" in told
        assert "in layer 0" not in told
        assert "in layer 1" not in told
    assert seen["attention"] == "The attention was not kept."
