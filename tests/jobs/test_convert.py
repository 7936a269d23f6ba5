"""``convert``: the copy holds what the original holds, in parts that every job reads."""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs import choose_k, convert, segment
from segmentation.datasets import layouts, partitions
from segmentation.pipeline.convert import PartRecord, write_part
from tests.conftest import write_tiny
from tests.jobs.test_invariance import assert_same, copy, data, reference, run

__all__ = ["data", "reference"]  # fixtures


def call(folder: Path, out: Path, *options: str) -> int:
    return convert.main(["--data", str(folder), "--out", str(out), "--quiet", *options])


@pytest.fixture(scope="module")
def copied(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("copied") / "out"
    assert call(data, out, "--partition-size", "300kB") == 0
    return out


def test_the_copy_is_the_original(data: Path, copied: Path) -> None:
    original = pd.read_csv(data / "ratings.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(copied / "ratings.parquet"), original)
    manifest = json.loads((copied / "run.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["job"] == "convert"
    assert manifest["data"]["synthetic"] is True
    assert manifest["rows"] == {"read": 60_000, "used": 60_000, "unmapped": 0, "rejected": 0}
    parts = sorted((copied / "ratings.parquet").iterdir())
    assert [part.name for part in parts] == [f"part-{i:05d}.parquet" for i in range(len(parts))]
    assert manifest["parquet"]["parts"] == len(parts) > 3
    assert manifest["parquet"]["bytes"] == sum(part.stat().st_size for part in parts)
    assert manifest["parquet"]["sorted_by_user"] is True
    assert not (copied / ".work").exists()
    group = pq.ParquetFile(parts[0]).metadata.row_group(0)
    assert group.column(0).compression == "ZSTD"
    assert group.column(0).statistics.min == original["userId"].min()
    assert group.sorting_columns[0].column_index == 0


def test_every_job_reads_it(copied: Path, reference, tmp_path: Path) -> None:
    result = run(copied, tmp_path / "out", "--partition-size", "100kB")
    assert_same(result, reference)
    assert result[1]["data"]["synthetic"] is True
    assert result[1]["kmeans"]["planted_ari"] == reference[1]["kmeans"]["planted_ari"]
    arguments = ["--data", str(copied), "--k-range", "2-3", "--quiet"]
    assert choose_k.main([*arguments, "--out", str(tmp_path / "k")]) == 0


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["kaggle-small", "ml-latest-small"])
def test_real_ratings(real_data: Path, tmp_path: Path, folder: str) -> None:
    out = tmp_path / "out"
    assert call(real_data / folder, out) == 0
    name = "ratings_small.csv" if folder == "kaggle-small" else "ratings.csv"
    original = pd.read_csv(real_data / folder / name)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "ratings.parquet"), original)
    one, other = run(out, tmp_path / "one"), run(real_data / folder, tmp_path / "other")
    pd.testing.assert_frame_equal(one[0], other[0])
    assert one[1]["rows"] == other[1]["rows"]
    assert one[1]["data"]["synthetic"] is False


def test_row_groups_have_a_maximum_size(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("segmentation.pipeline.convert.ROW_GROUP", 1_000)
    assert call(data, tmp_path / "out") == 0
    (part,) = (tmp_path / "out" / "ratings.parquet").iterdir()
    metadata = pq.ParquetFile(part).metadata
    assert max(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)) == 1_000


def test_odd_rows(tmp_path: Path) -> None:
    """Rejected rows are set aside with their line; ratings keep every digit."""
    folder = write_tiny(
        tmp_path / "tiny",
        "timestamp,userId,rating,movieId\n,9,3.7,10\nsoon,1,4,20\n5,1,bad,20\n7,1,0.5,999\n",
    )
    out = tmp_path / "out"
    assert call(folder, out, "--max-rejected", "0.5") == 0
    table = pd.read_parquet(out / "ratings.parquet")
    assert table["userId"].tolist() == [9, 1, 1]
    assert table["movieId"].tolist() == [10, 20, 999]
    assert table["rating"].tolist() == [3.7, 4.0, 0.5]
    assert table["timestamp"].isna().tolist() == [True, True, False]
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["rows"] == {"read": 4, "used": 3, "unmapped": 0, "rejected": 1}
    assert manifest["parquet"]["sorted_by_user"] is False
    rejected = pd.read_csv(out / "rejected" / "ratings.csv")
    assert rejected["line"].tolist() == [4]


def test_several_compressed_files_without_timestamps(data: Path, tmp_path: Path) -> None:
    folder = copy(data, tmp_path / "data")
    (folder / "ratings").mkdir()
    frame = pd.read_csv(data / "ratings.csv")[["userId", "movieId", "rating"]]
    for i, rows in enumerate(np.array_split(np.arange(len(frame)), 3)):
        text = frame.iloc[rows].to_csv(index=False)
        (folder / "ratings" / f"{i}.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert call(folder, tmp_path / "out") == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "ratings.parquet"), frame)


def test_every_file_is_read_back(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    write = pq.write_table

    def write_less(table, *arguments, **options) -> None:
        write(table.slice(1), *arguments, **options)

    out = tmp_path / "out"
    monkeypatch.setattr(pq, "write_table", write_less)
    assert call(data, out, "--partition-size", "300kB") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "reads back differently from what was written" in line
    assert not (out / "run.json").exists()
    assert not (out / "ratings.parquet").exists()


@contextmanager
def full_after_three_parts() -> Iterator[list[Path]]:
    """A disk with space for three files; yield the paths that were written."""
    write, written = pq.write_table, []

    def write_three(table, place, **options) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(place))
        written.append(place)
        write(table, place, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pq, "write_table", write_three)
        yield written


def test_resumed_from_finished_parts(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out"
    arguments = ["--partition-size", "300kB"]
    write = pq.write_table
    with full_after_three_parts() as written:
        assert call(data, out, *arguments) == 3
    assert "no space left on the disk: free some, then run again with --resume" in (
        capsys.readouterr().err
    )
    assert segment.main(["--data", str(data), "--out", str(out), "--quiet"]) == 2
    monkeypatch.setattr(pq, "write_table", lambda t, p, **o: (written.append(p), write(t, p, **o)))
    assert call(data, out, *arguments) == 2
    assert call(data, out, *arguments, "--resume") == 0
    assert len(written) == len({str(place) for place in written})
    original = pd.read_csv(data / "ratings.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "ratings.parquet"), original)
    # A finished copy is left as it is.
    n = len(written)
    assert call(data, out, *arguments, "--resume") == 0
    assert len(written) == n


@pytest.mark.parametrize("damage", ["cut", "swapped", "gone"])
def test_damage_to_finished_parts_is_found(
    data: Path, reference, tmp_path: Path, capsys, damage: str
) -> None:
    def damage_parts(parts: Path) -> None:
        one, other = parts / "part-00000.parquet", parts / "part-00001.parquet"
        if damage == "swapped":
            one.write_bytes(other.read_bytes())
        elif damage == "cut":
            one.write_bytes(one.read_bytes()[:1_000])
        else:
            one.unlink()

    out = tmp_path / "out"
    arguments = ["--partition-size", "300kB"]
    with full_after_three_parts():
        assert call(data, out, *arguments) == 3
    (parts,) = out.rglob("ratings.parquet")
    assert len(list(parts.glob("*.json"))) >= 2
    damage_parts(parts)
    assert call(data, out, *arguments, "--resume") == 0
    original = pd.read_csv(data / "ratings.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "ratings.parquet"), original)
    capsys.readouterr()
    # The same damage later on, when the copy is resumed or read.
    damage_parts(out / "ratings.parquet")
    assert call(data, out, *arguments, "--resume") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "part-00000.parquet: is missing or differs from what was written" in line
    assert line.endswith("pass --overwrite instead of --resume")
    assert segment.main(["--data", str(out), "--out", str(tmp_path / "s"), "--quiet"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {out}/ratings.parquet: holds ")
    assert "its run.json lists" in line
    assert call(data, out, *arguments, "--overwrite") == 0
    assert_same(run(out, tmp_path / "s"), reference)


def test_damage_within_a_page_is_found(copied: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "copy"
    shutil.copytree(copied, out)
    part = out / "ratings.parquet" / "part-00001.parquet"
    ratings = pq.ParquetFile(part).metadata.row_group(0).column(2)
    whole, rng = part.read_bytes(), np.random.default_rng(0)
    at = ratings.dictionary_page_offset or ratings.data_page_offset
    for place in at + rng.integers(ratings.total_compressed_size, size=12):
        bad = bytearray(whole)
        bad[place] ^= 4
        part.write_bytes(bad)
        arguments = ["--data", str(out), "--out", str(tmp_path / "out"), "--quiet"]
        assert segment.main(arguments) == 3
        assert f"{part}: can't be read" in capsys.readouterr().err


def test_a_warning_about_timestamps(tmp_path: Path, capsys) -> None:
    folder = write_tiny(
        tmp_path / "tiny",
        "userId,movieId,rating,timestamp\n9,10,3.5,2000-07-30\n1,20,4,5.0\n1,10,4,7\n",
    )
    assert call(folder, tmp_path / "out") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "warning: 1 timestamps are missing or can't be parsed" in line
    timestamps = pd.read_parquet(tmp_path / "out" / "ratings.parquet")["timestamp"]
    assert timestamps.isna().tolist() == [True, False, False]
    assert timestamps.dropna().tolist() == [5, 7]


def test_a_compressed_file_becomes_several_parts(
    data: Path, reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = copy(data, tmp_path / "data"), tmp_path / "out"
    with gzip.open(folder / "ratings.csv.gz", "wb", compresslevel=1) as file:
        file.write((data / "ratings.csv").read_bytes())
    monkeypatch.setattr(
        partitions, "read_chunks", functools.partial(partitions.read_chunks, size=100_000)
    )
    monkeypatch.setattr("segmentation.pipeline.convert.FILE_ROWS", 7_000)
    assert call(folder, out) == 0
    parts = sorted(path.name for path in (out / "ratings.parquet").iterdir())
    assert parts[:3] == ["part-00000.parquet", "part-00000_0001.parquet", "part-00000_0002.parquet"]
    rows = [pq.ParquetFile(out / "ratings.parquet" / name).metadata.num_rows for name in parts]
    assert max(rows) < 12_000
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["parquet"]["parts"] == len(parts)
    assert manifest["parquet"]["sorted_by_user"] is True
    original = pd.read_csv(data / "ratings.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "ratings.parquet"), original)
    assert_same(run(out, tmp_path / "read"), reference)
    # A record lists all its files: if one is missing, the partition is written again.
    part = tmp_path / "part"
    (fragments,) = partitions.plan_partitions(
        partitions.probe_files(layouts.detect_layout(str(folder))), 1 << 20
    )
    summary = write_part(fragments, part)
    (tmp_path / "part_0001.parquet").unlink()
    assert write_part(fragments, part).used == summary.used == 60_000
    assert (tmp_path / "part_0001.parquet").exists()
    assert len(PartRecord.read(tmp_path / "part.json").files) == len(parts)


def test_copies_and_runs_do_not_overwrite_each_other(
    copied: Path, data: Path, tmp_path: Path, capsys
) -> None:
    for options in ([], ["--overwrite"], ["--resume"]):
        arguments = ["--data", str(data), "--out", str(copied), "--quiet", *options]
        assert segment.main(arguments) == 2
        assert f"{copied}: holds a run of convert: choose another --out" in capsys.readouterr().err
    out = tmp_path / "out"
    run(data, out)
    assert call(data, out, "--overwrite") == 2
    assert "holds a run of segment: choose another --out" in capsys.readouterr().err
    # The folder of the source is no place for its copy.
    shutil.copytree(data, tmp_path / "source")
    assert call(tmp_path / "source", tmp_path / "source", "--overwrite") == 2
    assert "but no run: choose another --out" in capsys.readouterr().err
    assert (tmp_path / "source" / "ratings.csv").exists()


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_a_copy_of_its_own_folder_is_refused(
    data: Path, tmp_path: Path, capsys, option: str
) -> None:
    """Overwriting would delete what is read."""
    copy = tmp_path / "copy"
    assert call(data, copy) == 0
    (tmp_path / "link").symlink_to(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for source in (copy, tmp_path / "link", tmp_path / "x" / ".." / "copy"):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert call(source, copy, option) == 2
        assert "lies in the run's folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_overwritten(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(data, out, "--partition-size", "200kB") == 0
    many = len(list((out / "ratings.parquet").iterdir()))
    assert call(data, out) == 2
    (out / "ratings.parquet" / "mine.txt").write_text("mine")
    assert call(data, out, "--overwrite") == 2
    assert (out / "ratings.parquet" / "mine.txt").read_text() == "mine"
    (out / "ratings.parquet" / "mine.txt").unlink()
    assert call(data, out, "--overwrite") == 0
    assert many > 1
    assert [path.name for path in (out / "ratings.parquet").iterdir()] == ["part-00000.parquet"]


def test_the_terminal(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert convert.main(["--data", str(data), "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert "60,000 ratings, sorted by user, in 1 part" in output.out
    assert output.out.endswith(f"data: {out} (for --data)\n")
    assert "Parquet: 60,000 ratings in 1 part" in output.err


@pytest.mark.parametrize("manifest", [None, "{", '{"job": "convert", "parquet": {"parts": 1e999}}'])
def test_parts_that_are_named_themselves_are_checked(
    data: Path, copied: Path, tmp_path: Path, capsys, manifest: str | None
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(copied, out)
    (out / "ratings.parquet" / "part-00002.parquet").unlink()
    message = "its run.json lists"
    if manifest is not None:
        (out / "run.json").write_text(manifest)
        message = "is no manifest of"
    for source, ratings in (
        (out, []),
        (data, ["--ratings", f"{out}/ratings.parquet"]),
        (out, ["--ratings", f"{out}/ratings.parquet/"]),
    ):
        arguments = ["--data", str(source), "--out", str(tmp_path / "out"), "--quiet"]
        assert segment.main([*arguments, *ratings]) == 3
        assert message in capsys.readouterr().err


def test_a_pipe_in_the_place_of_a_manifest(copied: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "copy"
    shutil.copytree(copied, out)
    (out / "run.json").unlink()
    os.mkfifo(out / "run.json")
    assert segment.main(["--data", str(out), "--out", str(tmp_path / "out"), "--quiet"]) == 3
    assert "run.json: is no manifest of" in capsys.readouterr().err
