"""Reports: one offline file, all text escaped, the same content in HTML and Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from segmentation.reporting import personas, report
from segmentation.schema import KAGGLE_GENRES, Persona
from tests.reporting.test_personas import profile

PROFILES = [profile(0, 5, 0, 1.5), profile(1, 50, 10, 3.0, lift=4)]
PERSONAS = personas.assign_personas(PROFILES, KAGGLE_GENRES, personas.load_playbook())


def facts(**changes: object) -> report.ReportFacts:
    values = {
        "title": "Audience segments",
        "source": "Ratings from r.csv",
        "synthetic": False,
        "created": "1 May 2026",
        "headline": (("Users", "200"),),
        "warnings": (),
        "tables": {"Data": [("rows read", "1,000")]},
    }
    return report.ReportFacts(**{**values, **changes})


class Page(HTMLParser):
    """Collect what a browser would fetch or run, and check that tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.images_without_text = 0
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        attributes = dict(attrs)
        self.sources += [attributes[key] for key in ("src", "href") if key in attributes]
        self.images_without_text += tag == "img" and not attributes.get("alt")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_html_is_one_offline_file() -> None:
    text = report.render_html(facts(), PROFILES, PERSONAS, KAGGLE_GENRES, {"c": (b"png", "alt")})
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.images_without_text == 0
    assert not re.search(r"url\(|@import|https?://", text)


@pytest.mark.parametrize("nasty", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "a&b"])
def test_html_is_escaped_everywhere(nasty: str) -> None:
    persona = Persona(nasty, nasty, nasty, (nasty,), (nasty,))
    hostile = facts(
        title=nasty,
        source=nasty,
        created=nasty,
        headline=((nasty, nasty),),
        warnings=(nasty,),
        tables={nasty: [(nasty, nasty)]},
    )
    genres = (nasty, *KAGGLE_GENRES[1:])
    text = report.render_html(hostile, PROFILES, [persona] * 2, genres, {nasty: (b"x", nasty)})
    assert nasty not in text
    page = Page(text)
    assert page.tags.count("img") == 1
    assert "script" not in page.tags


def test_markdown_is_escaped() -> None:
    persona = Persona("A|B <script>", "[x](javascript:y)", "`s`", ("p",), ("m",))
    text = report.render_markdown(facts(), PROFILES, [persona] * 2, KAGGLE_GENRES, {})
    assert "A\\|B \\<script\\>" in text
    assert "\\[x\\](javascript:y)" in text
    rows = [line for line in text.splitlines() if line.startswith("| 0 |")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 10


def test_both_forms_report_synthetic_data_and_warnings() -> None:
    synthetic = facts(synthetic=True, warnings=("beware of this",))
    page = report.render_html(synthetic, PROFILES, PERSONAS, KAGGLE_GENRES, {})
    text = report.render_markdown(synthetic, PROFILES, PERSONAS, KAGGLE_GENRES, {})
    for form in (page, text):
        assert "Synthetic data" in form
        assert "beware of this" in form
    plain = report.render_html(facts(), PROFILES, PERSONAS, KAGGLE_GENRES, {})
    assert "Synthetic data" not in plain


def test_both_forms_hold_the_segments() -> None:
    page = report.render_html(facts(), PROFILES, PERSONAS, KAGGLE_GENRES, {})
    text = report.render_markdown(
        facts(), PROFILES, PERSONAS, KAGGLE_GENRES, {"c": "figures/c.png"}
    )
    for persona in PERSONAS:
        for line in (persona.name, persona.tagline, *persona.marketing_actions):
            assert line in page.replace("&#39;", "'")
            assert line in text
    assert "![c](figures/c.png)" in text
    assert "&" not in text, "Markdown is not HTML-escaped"


def test_weak_segments_are_marked() -> None:
    profiles = [replace(PROFILES[0], stability=0.41), replace(PROFILES[1], stability=0.93)]
    page = report.render_html(facts(), profiles, PERSONAS, KAGGLE_GENRES, {})
    text = report.render_markdown(facts(), profiles, PERSONAS, KAGGLE_GENRES, {})
    for form in (page, text):
        assert form.count("reappears with a similarity") == 1
        assert "0.41 (weak)" in form
        assert "0.93" in form
    table = report.format_segment_table(profiles, PERSONAS, KAGGLE_GENRES)
    assert "weak: segment 0, hardly found again" in table
    assert "weak" not in report.format_segment_table(PROFILES, PERSONAS, KAGGLE_GENRES)


def test_segment_table() -> None:
    lines = report.format_segment_table(PROFILES, PERSONAS, KAGGLE_GENRES).splitlines()
    assert lines[0].split("  ")[0] == "#"
    assert len(lines) == 4
    assert "0 of 20" in lines[2]
    assert "10 of 20: Action, Adventure …" in lines[3]
