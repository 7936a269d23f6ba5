"""Read a whole ratings file through partitions, fragments and chunks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
from hypothesis import strategies as st

from segmentation.datasets.csv_reader import parse_lines
from segmentation.datasets.format import ParsedChunk, RatingsFormat
from segmentation.datasets.layouts import Layout
from segmentation.datasets.partitions import plan_partitions, probe_files, read_chunks

HEADER = "userId,movieId,rating,timestamp\n"

_FIELD = st.one_of(
    st.integers(-3, 12).map(str),
    st.sampled_from(
        [
            "",
            " ",
            "NaN",
            "inf",
            "6.0",
            "5.0",
            "0.5",
            "4.5",
            "-1",
            "1e0",
            ".5",
            "5.",
            "0x1F",
            "+3",
            "1_0",
            "٣",
            "99999999999999999999",
            "9223372036854775807",
            "a",
            '"2"',
            '"3',
            "2\x1f",
            "\x00",
            " 3",
            "4\t",
            "3 0",
        ]
    ),
)
#: Ratings, and lines that may be anything.
LINES = st.one_of(
    st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(1, 10)).map(
        lambda row: f"{row[0]},{row[1]},{row[2] / 2},{row[0]}"
    ),
    st.lists(_FIELD, min_size=1, max_size=6).map(",".join),
)


def probe(path: Path) -> RatingsFormat:
    """The format of one file whose ids are integers, however damaged its few lines are."""
    (file,) = probe_files(Layout("kaggle", str(path.parent), str(path), "", None, ()))
    return dataclasses.replace(
        file, string_columns=(), decimal_comma=False, columns=tuple(filter(None, file.columns))
    )


def read_file(
    path: Path, partition_bytes: int = 1 << 25, chunk_bytes: int = 1 << 25
) -> tuple[pd.DataFrame, list[tuple[int, str, bytes]], int]:
    """Every row, every rejected line with its number in the file, and the number of lines."""
    file = probe(path)
    frames, rejected, n_lines = [], [], file.header_lines
    for partition in plan_partitions([file], partition_bytes):
        for fragment in partition:
            for chunk in read_chunks(fragment, chunk_bytes):
                parsed = (
                    chunk if isinstance(chunk, ParsedChunk) else parse_lines(file, bytes(chunk))
                )
                frames.append(parsed.ratings)
                rejected += [(n_lines + 1 + r.line, r.reason, r.text) for r in parsed.rejected]
                n_lines += parsed.lines
    return pd.concat(frames, ignore_index=True), rejected, n_lines


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
