"""Settings: validated once, in one line that says what may be given."""

from __future__ import annotations

import pytest

from segmentation.errors import UsageError
from segmentation.pipeline.settings import Settings, parse_synthetic_rows


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "k 0: choose from 1 to 50, or auto"),
        ({"k": 51}, "k 51: choose from 1 to 50, or auto"),
        ({"k_range": (1, 5)}, "k_range 1-5: give two rising numbers from 2 to 50"),
        ({"preset": "x"}, "preset x: choose from engagement, taste, original"),
        ({"join": "left"}, "join left: choose from links, direct"),
        (
            {"preset": "original", "join": "links"},
            "preset original uses the direct join: leave join out",
        ),
        ({"seed": -1}, "seed -1: choose from 0 to 4294967295"),
        ({"max_rejected": 1.5}, "max_rejected 1.5: give a share from 0 to 1"),
        ({"partition_bytes": 5}, "partition_bytes: give at least 1 KiB"),
        ({"data": "synthetic:many"}, "data synthetic:many: give the number of ratings"),
        ({"data": "synthetic:5"}, "data synthetic:5: choose from 1,000 to 10,000,000,000 ratings"),
    ],
)
def test_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_a_synthetic_source() -> None:
    assert parse_synthetic_rows("synthetic") == 1_000_000
    assert parse_synthetic_rows("synthetic:26024289") == 26_024_289
    assert parse_synthetic_rows("synthetic:26_024_289") == 26_024_289
    assert parse_synthetic_rows("kaggle") is None
    assert parse_synthetic_rows("/data/synthetic") is None


def test_the_join_that_is_made() -> None:
    assert Settings().effective_join == "links"
    assert Settings(preset="original").effective_join == "direct"
    assert Settings(join="direct").effective_join == "direct"
    assert Settings(preset="original").to_json()["join"] == "direct"


def test_a_stage_key_holds_what_the_result_depends_on_and_nothing_else() -> None:
    base = Settings()
    for stage in ("ratings", "kmeans", "pca"):
        same = Settings(partition_bytes=4096, playbook="p.toml", data="/x", ratings="r.csv")
        assert same.stage_key(stage) == base.stage_key(stage)
        for change in ({"join": "direct"}, {"max_rejected": 0.5}):
            assert Settings(**change).stage_key(stage) != base.stage_key(stage)
    assert Settings(k=4, preset="taste", seed=3).stage_key("ratings") == base.stage_key("ratings")
    assert Settings(k=4, seed=3).stage_key("pca") == base.stage_key("pca")
    assert Settings(preset="taste").stage_key("pca") != base.stage_key("pca")
    # The range matters only where it is searched.
    wider = Settings(k_range=(2, 12))
    assert wider.stage_key("kmeans") == base.stage_key("kmeans")
    assert wider.stage_key("choose_k") != base.stage_key("choose_k")
    assert Settings(k="auto", k_range=(2, 12)).stage_key("kmeans") != Settings(k="auto").stage_key(
        "kmeans"
    )
    for change in ({"k": 4}, {"seed": 1}, {"preset": "taste"}):
        assert Settings(**change).stage_key("kmeans") != base.stage_key("kmeans")


@pytest.mark.parametrize("text", ["0", "-5", "-1MiB", "0 GiB", "much"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    from jobs.options import parse_size

    with pytest.raises(UsageError, match="memory_limit .*: give bytes with a unit, as in 32MiB"):
        parse_size("memory_limit", text)
    assert parse_size("memory_limit", "1KiB") == 1_024
