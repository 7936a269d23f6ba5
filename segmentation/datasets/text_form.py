"""Recognize how a text file is written: its encoding, separator, decimal mark and header.

All of it is decided from the first bytes of a file. What the user says comes first.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from segmentation.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Number of bytes that a file is recognized by.
HEAD_BYTES = 1 << 16
#: The separators that are recognized, in the order of preference.
_SEPARATORS = (b",", b";", b"\t", b"::", b"|")
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
#: Names that a user may give to separators that are hard to type.
_TYPED_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
#: Number of lines that the separator is decided from.
_SAMPLE_LINES = 50
#: Excel names the separator in a line of its own.
_SEPARATOR_LINE = re.compile(rb"sep=([^\r\n])\r?\n", re.IGNORECASE)
#: A number as Excel writes it where the decimal mark is a comma.
_COMMA_NUMBER = re.compile(rb"[ \t]*-?\d+,\d+[ \t]*\Z")
_THOUSANDS = re.compile(rb"[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_BLANK = b' \t"'
#: Longest field, in bytes.
_FIELD_LIMIT = 1 << 24


@dataclass(frozen=True)
class TextOptions:
    """What the user says about text files; None for what is recognized.

    Parameters
    ----------
    separator
        The characters between two fields.
    decimal
        The decimal mark, ``.`` or ``,``.
    encoding
        The name of an encoding.
    has_header
        Whether the first line names the columns.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    has_header: bool = True


class TextForm(NamedTuple):
    """How a text file is written.

    Attributes
    ----------
    encoding
        The name of its encoding as Python knows it.
    separator
        The bytes between two fields, in UTF-8.
    header
        The names in the first line; empty without a header.
    start
        Offset of the first row: in the file for encodings that keep ASCII, else in its text in
        UTF-8, without byte-order mark.
    header_lines
        Number of lines before the first row.
    rows
        The first rows, in UTF-8, without line ends.
    """

    encoding: str
    separator: bytes
    header: tuple[str, ...]
    start: int
    header_lines: int
    rows: tuple[bytes, ...]


def parse_separator(text: str) -> str:
    r"""Return the separator that a user names.

    Raises
    ------
    UsageError
        If it can't separate fields.

    Examples
    --------
    >>> parse_separator("tab"), parse_separator(";")
    ('\t', ';')
    """
    separator = _TYPED_SEPARATORS.get(text.lower(), text)
    is_plain = len(separator) == 1 and separator.isascii() and separator not in '"\r\n\0.0123456789'
    if not (is_plain or separator == "::"):
        raise UsageError(
            "{separator} {value!r}: give one character, such as ';', or tab, or '::'",
            "separator",
            value=text,
        )
    return separator


def parse_encoding(name: str) -> str:
    """Return Python's name of an encoding.

    Raises
    ------
    UsageError
        If there is none of this name, or it is not an encoding of text.
    """
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name).decode(codec.name)
    except (LookupError, UnicodeError, ValueError):
        raise UsageError(
            "{encoding} {value!r}: is no encoding that Python knows; try utf-8, utf-16 or latin-1",
            "encoding",
            value=name,
        ) from None
    return codec.name


def keeps_ascii(encoding: str) -> bool:
    """Return whether ASCII characters are single bytes of the same value, and only they.

    A file in such an encoding can be cut at line ends before it is decoded.
    """
    return encoding in ("utf-8", "ascii") or not encoding.startswith(
        ("utf-16", "utf_16", "utf-32", "utf_32", "utf-7", "utf_7", "shift", "big5", "gb", "iso2022")
    )


def recognize_encoding(head: bytes) -> str:
    """Return the encoding of a file from its first bytes.

    Text that is not UTF-8 is taken for Latin-1, unless it has characters in UTF-8 as well: then it
    is damaged.

    Examples
    --------
    >>> recognize_encoding("café".encode("latin-1"))
    'latin-1'
    >>> recognize_encoding("1,2".encode("utf-16"))
    'utf-16-le'
    """
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding
    for encoding, nul, other in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        n_pairs = len(head) // 2
        if n_pairs and head[nul::2].count(0) > 0.8 * n_pairs > 4 * head[other::2].count(0):
            return encoding
    if len(head) >= HEAD_BYTES:
        # The last character may be cut off.
        head = head[:-3] + bytes(byte for byte in head[-3:] if byte < 128)
    text = head.decode("utf-8", "replace")
    n_damaged = text.count("\N{REPLACEMENT CHARACTER}")
    has_other = any(ord(c) > 127 and c != "\N{REPLACEMENT CHARACTER}" for c in set(text))
    return "latin-1" if n_damaged and not has_other else "utf-8"


def recognize_form(
    path: str,
    head: bytes,
    options: TextOptions,
    required: Sequence[str] = (),
    *,
    separator: bytes | None = None,
    is_whole: bool,
) -> TextForm:
    """Return how a file is written, from its first bytes.

    Parameters
    ----------
    path
        The file, to name in an error.
    head
        Its first bytes, decompressed.
    options
        What the user says.
    required
        Columns that the header has to name; they tell the separator.
    separator
        The layout's separator; None to recognize it.
    is_whole
        Whether ``head`` is the whole file.

    Raises
    ------
    DataError
        If the bytes are not text in the encoding that the user names.
    """
    encoding = options.encoding or recognize_encoding(head)
    in_place = keeps_ascii(encoding)
    n_bom = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) and in_place else 0
    text = head[n_bom:] if in_place else decode_text(path, head, encoding, is_whole=is_whole)
    start, header_lines = n_bom, 0
    if marked := _SEPARATOR_LINE.match(text):
        separator = separator or marked[1]
        start, header_lines, text = start + marked.end(), 1, text[marked.end() :]
    if options.separator is not None:
        separator = options.separator.encode()
    lines = text.split(b"\n")
    if not is_whole and len(lines) > 1:
        # The last line is cut off.
        del lines[-1]
    sample = [line.rstrip(b"\r") for line in lines]
    separator = separator or _recognize_separator(sample, required if options.has_header else ())
    header: tuple[str, ...] = ()
    if options.has_header:
        header = tuple(
            field.decode("utf-8" if not in_place else encoding, "replace").strip()
            for field in split_fields(sample[0], separator)
        )
        start, header_lines, sample = start + len(lines[0]) + 1, header_lines + 1, sample[1:]
    rows = tuple(row for row in sample if row.strip(_BLANK + separator))
    return TextForm(encoding, separator, header, start, header_lines, rows)


def decode_text(path: str, data: bytes, encoding: str, *, is_whole: bool = True) -> bytes:
    """Return text as UTF-8, without byte-order mark.

    Raises
    ------
    DataError
        If it is not in this encoding.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, is_whole)
    except UnicodeError as error:
        # The error about a missing byte-order mark has no position.
        start = getattr(error, "start", 0)
        raise DataError(
            "{path}: is not in {name} at byte {byte:,}: set {encoding} to its encoding",
            "encoding",
            path=path,
            name=encoding,
            byte=start,
        ) from error
    return text.removeprefix("\N{BYTE ORDER MARK}").encode()


def split_fields(line: bytes, separator: bytes) -> list[bytes]:
    """Split a line into fields, and remove their quotes."""
    if b'"' in line and len(separator) == 1:
        # The csv module fails at a lone CR, which is part of a field here.
        with contextlib.suppress(csv.Error):
            # The default, 128 KiB, may be raised elsewhere in this process.
            csv.field_size_limit(_FIELD_LIMIT)
            delimiter = separator.decode("latin-1")
            fields = next(csv.reader([line.decode("latin-1")], delimiter=delimiter), [])
            return [field.encode("latin-1") for field in fields]
    return line.split(separator)


def has_decimal_commas(fields: Sequence[bytes]) -> bool:
    """Return whether numbers have a decimal comma: most of those with a mark do."""
    n_commas = sum(bool(_COMMA_NUMBER.match(field)) for field in fields)
    n_points = sum(b"." in field for field in fields)
    return n_commas > n_points


def has_thousands(field: bytes) -> bool:
    """Return whether a number may have commas between its thousands.

    Examples
    --------
    >>> has_thousands(b"7,263"), has_thousands(b"7,5"), has_thousands(b"0,125")
    (True, False, False)
    """
    return _THOUSANDS.fullmatch(field.strip()) is not None


def _recognize_separator(lines: Sequence[bytes], required: Sequence[str]) -> bytes:
    """Return the separator whose fields name the required columns, or are as many in each line."""
    lines = [line for line in lines[:_SAMPLE_LINES] if line.strip()]
    if not lines:
        return _SEPARATORS[0]
    if required:
        for separator in _SEPARATORS:
            names = {field.strip().decode("latin-1") for field in split_fields(lines[0], separator)}
            if names.issuperset(required):
                return separator
    best, best_score = _SEPARATORS[0], (0.0, 0)
    for separator in _SEPARATORS:
        counts = Counter(len(split_fields(line, separator)) for line in lines)
        n_fields, n_lines = counts.most_common(1)[0]
        score = (n_lines / len(lines), n_fields)
        if n_fields > 1 and score > best_score:
            best, best_score = separator, score
    return best
