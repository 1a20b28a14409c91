"""In a browser, a report of some layers, without attention: menus and captions tell the layers' own numbers."""

from __future__ import annotations

from pathlib import Path

import results
from browser import look

from captum_attattr import write_report

STEPS = """
  const flow = document.querySelector("#flow-plot");
  seen.options = [...flow.querySelector(".flow-layer").options].map((each) => each.text);
  const menu = flow.querySelector(".flow-layer");
  menu.selectedIndex = 2;
  menu.dispatchEvent(new Event("change"));
  await wait();
  seen.caption = flow._fullLayout.annotations[0].text;
  const maps = document.querySelector("#maps-plot");
  maps.scrollIntoView();
  await wait();
  for (const name of ["ArrowUp", "ArrowUp", "ArrowLeft", "ArrowDown"]) { key(maps, name); await wait(); }
  seen.chosen = maps.closest(".figure").textContent.match(/layer \\d, head \\d/g);
"""


def test_in_a_browser(tmp_path: Path) -> None:
    given = results.explanation(
        2, 3, ["[CLS]", *(f"word{i}" for i in range(6)), "[SEP]"], layers=[2, 5], attention=None
    )
    seen = look(write_report(given, tmp_path / "report.html"), STEPS, tmp_path)
    assert seen["failures"] == []
    assert seen["options"] == ["all layers", "layer 2", "layer 5"]
    assert "(layer 5, sum over heads)" in seen["caption"]
    assert "layer 5, head 0" in seen["chosen"] or "layer 5, head 1" in seen["chosen"]
