"""The secrets of a URL are hidden in any text around it."""

from __future__ import annotations

import logging

import pytest

from segmentation.redaction import RedactingFilter, redact, redact_html, redact_values

SECRET_URLS = [
    "//me:SECRET@host/ratings.csv",
    "https://me:SECRET@host/r.csv",
    "https://SECRET@host/r.csv",
    "https://me:a'SECRET@host/r.csv",
    'https://me:se"SECRET@host/r.csv',
    "https://me:a<SECRET>@host/r.csv",
    "https://me:pa ss SECRET@host/r.csv",
    "https://me:12/SECRET@host/r.csv",
    "https://me:pa/SECRET@host/r.csv",
    "https://me:p@SECRET@host/r.csv",
    "http:/me:SECRET@host/r.csv",
    "https://host/r.csv?X-Amz-Signature=SECRET%2B&b=SECRET",
    "https://host/r.csv?X='SECRET&b=<SECRET>",
    'https://host/r.csv?X="SECRET"',
    "https://host/r.csv#SECRET",
    "simplecache::https://me:SECRET@host/r.csv?t=SECRET",
    "zip://r.csv::https://host/ml.zip?t=SECRET",
    "https://host/o'b/r.csv?X-Amz-Signature=SECRET",
    'https://host/o"b<c>/r.csv?X-Amz-Signature=SECRET',
    "https://host/r.csv?a=b c&t=SECRET",
    "s3://KEY:SE/SECRET@host/r.csv",
]


@pytest.mark.parametrize("url", SECRET_URLS)
@pytest.mark.parametrize("text", ["{}", "error: {}: no such file", "'{}', 99", "({})", "a {}\nb"])
def test_secrets_are_hidden(url: str, text: str) -> None:
    redacted = redact(text.format(url))
    assert "SECRET" not in redacted
    assert redact(redacted) == redacted
    assert "host" in redacted
    assert redact_values({"a": [(url,)]})["a"][0][0] == redact(url)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/ml/ratings.csv: no such file",
        "tcp://127.0.0.1:8786, and write to admin@example.org"[:20],
        "http://127.0.0.1:8080/ratings.csv",
        "zip://ratings.csv::https://host/ml.zip",
        "C:/data/ratings.csv?",
        "user@host: a:/b",
        "a//b and me@example.org: x",
        "k 99: choose from 1 to 50",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_html_stays_whole() -> None:
    page = '<a href="https://me:SECRET@host/r?t=SECRET">x</a><b>https://host/r?t=\'SECRET</b>'
    assert redact_html(page) == '<a href="https://***@host/r?***">x</a><b>https://host/r?***</b>'


def test_log_records_are_redacted_with_their_tracebacks() -> None:
    try:
        raise ValueError("https://me:SECRET@host/r")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", 1, "f", 1, "read %s", ("https://h/r?t=SECRET",), info)
    RedactingFilter().filter(record)
    assert record.getMessage() == "read https://h/r?***"
    assert "SECRET" not in (record.exc_text or "SECRET")
