"""The report in headless Chromium, at desktop and phone widths: nothing clipped or overlapping."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path

import pytest

from jobs import segment

pytestmark = pytest.mark.browser

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
]

#: Measures the page from within and appends the result as JSON, which --dump-dom prints.
_PROBE = """
<script>
addEventListener("load", () => {
  const width = document.documentElement.clientWidth;
  const name = e => e.tagName + "." + e.className + ": " + e.textContent.trim().slice(0, 40);
  const all = [...document.querySelectorAll("main *")];
  const wide = all.filter(e => e.getBoundingClientRect().right > width + 1).map(name);
  const clipped = all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && getComputedStyle(e).overflowX === "hidden").map(name);
  const boxes = [...document.querySelectorAll("h1, h2, .card, figure, .scroll, .facts section")]
    .map(e => [name(e), e.getBoundingClientRect()]);
  const overlaps = [];
  for (const [a, p] of boxes) for (const [b, q] of boxes)
    if (a < b && p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1
        && q.top < p.bottom - 1) overlaps.push(a + " / " + b);
  const images = [...document.images].map(i => [i.naturalWidth, i.alt]);
  const unlabelled = [...document.querySelectorAll("td, dd, dt, th, h1, h2, h3, h4, li")]
    .filter(e => !e.textContent.trim()).map(name);
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify({width, wide, clipped, overlaps, images, unlabelled,
    scroll: document.documentElement.scrollWidth});
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    arguments = ["--data", "synthetic:50000", "--k", "auto", "--k-range", "4-6"]
    assert segment.main([*arguments, "--out", str(out), "--quiet"]) == 0
    return out / "report.html"


def measure(report: Path, tmp_path: Path, width: int) -> dict:
    # Chromium's window is at least 500 pixels wide; a frame can be narrower.
    page = tmp_path / "page.html"
    page.write_text(report.read_text("utf-8").replace("</body>", _PROBE + "</body>"), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
        "<script>addEventListener('load', () => setTimeout(() => {"
        "const p = document.createElement('pre'); p.id = 'outer';"
        "p.textContent = f.contentDocument.getElementById('probe').textContent;"
        "document.body.append(p)}, 300))</script>"
    )
    dom = subprocess.run(
        [
            "chromium",
            *_FLAGS,
            "--allow-file-access-from-files",
            "--window-size=1400,1000",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    match = re.search(r'<pre id="outer">(.*?)</pre>', dom, re.S)
    assert match, dom[-500:]
    return dict(json.loads(html.unescape(match[1])))


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_nothing_is_clipped_overlapping_or_empty(report: Path, tmp_path: Path, width: int) -> None:
    page = measure(report, tmp_path, width)
    assert page["width"] <= width
    assert page["scroll"] <= page["width"], "the page itself must not scroll sideways"
    assert page["wide"] == []
    assert page["clipped"] == []
    assert page["overlaps"] == []
    assert page["unlabelled"] == []
    assert len(page["images"]) == 4
    assert all(natural > 400 and alt for natural, alt in page["images"])
