"""Bytes that no program wrote: every reader returns a result or raises an error for the user.

Each target starts from a valid file and changes it. ``SEGMENTATION_FUZZ_EXAMPLES`` sets how many
inputs each target gets.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation.datasets import catalogue, layouts, partitions
from segmentation.deploy import config
from segmentation.errors import SegmentationError
from segmentation.features.partition_reader import aggregate_partition
from segmentation.pipeline.model import load_model
from segmentation.reporting import outputs, personas
from segmentation.storage import integrity, run_folder
from tests.conftest import write_tiny

N_EXAMPLES = int(os.environ.get("SEGMENTATION_FUZZ_EXAMPLES", "60"))
PLAYBOOK = Path(personas.__file__).with_name("playbook.toml")
CLUSTER = "kind: local\nworkers: 2\nthreads_per_worker: 1\nmemory_limit: 1GiB\ndashboard: false\n"

#: What breaks parsers.
_TOKENS = [
    b"",
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b",",
    b"::",
    b"\xff",
    b"-1",
    b"1e999",
    b"nan",
    b"{",
    b"[",
]
_TOKENS += [b"}", b"null", b"\\u0000", b"9" * 25, b"\xef\xbb\xbf", b"'", b"|", b"\x1f\x8b", b"$"]
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=6)),
    ),
    min_size=1,
    max_size=5,
)


def mutate(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Replace some bytes at some places; a length of 12 cuts the rest off."""
    for place, length, replacement in edits:
        start = int(place * len(content))
        stop = len(content) if length == 12 else start + length
        content = content[:start] + replacement + content[stop:]
    return content


def read_ratings(folder: Path) -> None:
    layout = layouts.detect_layout(str(folder))
    movies = catalogue.load_catalogue(layout, "links")
    table = movies.table()
    files = partitions.probe_files(layout, string_item_ids=movies.has_text_ids)
    for fragments in partitions.plan_partitions(files, 1 << 16):
        statistics, summary = aggregate_partition(fragments, table)
        assert int(statistics.items.sum()) == summary.used
        assert (np.diff(statistics.users) > 0).all() if len(statistics.users) > 1 else True


def read_catalogue(folder: Path) -> None:
    layout = layouts.detect_layout(str(folder))
    for join in ("links", "direct"):
        result = catalogue.load_catalogue(layout, join)
        assert len(result.item_ids) == len(result.table().item_ids)


def read_manifest(folder: Path) -> None:
    run_folder.read_manifest(folder)


def write_run(folder: Path) -> None:
    folder.mkdir()
    record = integrity.add_checksum({"job": "segment", "settings": {}, "data": {}, "rows": {}})
    (folder / "run.json").write_text(json.dumps(record))
    genres = {name: {"mean": 1.0, "mean_rated": 2.0, "coverage": 0.5, "lift": 1.0} for name in "ab"}
    segment = {"segment": 0, "persona": "A", "tagline": "t", "users": 3, "share": 1.0}
    segment |= {"items_per_user": 2.0, "mean_rating": 3.0, "stability": None, "high_rated": []}
    segment |= {"categories": genres, "summary": "s", "product_strategy": ["p"]}
    (folder / "segments.json").write_text(json.dumps([{**segment, "marketing_actions": ["m"]}]))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_tiny(folder / "csv")
    for kind in ("gzip", "parquet"):
        shutil.copytree(folder / "csv", folder / kind)
        frame = pd.read_csv(folder / "csv" / "ratings.csv")
        (folder / kind / "ratings.csv").unlink()
        if kind == "gzip":
            frame.to_csv(folder / kind / "ratings.csv.gz", index=False)
        else:
            frame.to_parquet(folder / kind / "ratings.parquet")
    (folder / "dat").mkdir()
    (folder / "dat" / "movies.dat").write_text("10::A (1990)::Drama|Comedy\n20::B::Action\n")
    (folder / "dat" / "ratings.dat").write_text("1::10::4::1\n1::20::3.5::2\n2::10::5::3\n")
    (folder / "grouplens").mkdir()
    (folder / "grouplens" / "movies.csv").write_text('movieId,title,genres\n10,"A, b",Drama|War\n')
    (folder / "grouplens" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4,1\n")
    write_run(folder / "run")
    (folder / "playbook.toml").write_bytes(PLAYBOOK.read_bytes())
    (folder / "cluster.yaml").write_text(CLUSTER)
    return folder


TARGETS: list[tuple[str, Callable[[Path], object]]] = [
    ("csv/ratings.csv", read_ratings),
    ("gzip/ratings.csv.gz", read_ratings),
    ("parquet/ratings.parquet", read_ratings),
    ("dat/ratings.dat", read_ratings),
    ("csv/movies_metadata.csv", read_catalogue),
    ("csv/links.csv", read_catalogue),
    ("dat/movies.dat", read_catalogue),
    ("grouplens/movies.csv", read_catalogue),
    ("grouplens/ratings.csv", read_ratings),
    ("run/run.json", read_manifest),
    ("run/segments.json", lambda folder: outputs.read_segments(folder / "segments.json")),
    ("run/model.json", load_model),
    ("playbook.toml", lambda folder: personas.load_playbook(folder / "playbook.toml")),
    ("cluster.yaml", lambda folder: config.load_config(str(folder / "cluster.yaml"))),
]


@pytest.mark.parametrize(("name", "read"), TARGETS, ids=[name for name, _ in TARGETS])
def test_a_changed_file_gives_a_result_or_an_error_for_the_user(
    scratch: Path, name: str, read: Callable[[Path], object]
) -> None:
    path = scratch / name
    original = path.read_bytes() if path.exists() else b'{"format": 2, "segments": []}'

    @given(EDITS)
    @settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(edits: list[tuple[float, int, bytes]]) -> None:
        path.write_bytes(mutate(original, edits))
        try:
            read(path.parent)
        except SegmentationError as raised:
            error = raised
        else:
            return
        assert len(str(error).splitlines()) == 1
        assert error.exit_status in (2, 3, 4)

    try:
        check()
    finally:
        path.write_bytes(original)
