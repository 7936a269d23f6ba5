"""What every benchmark shares: checked settings and the folder of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import benchmark
from segmentation.benchmark import results
from segmentation.errors import UsageError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds 0: choose from 1 to 1000"),
        (["--estimators", "--copies", "1,x"], "'1,x' is not a list of numbers"),
        (["--estimators", "--copies", "0"], "--copies 0: choose from 1 to 1000"),
        (["--estimators", "--peers", "ours,julia"], "--peers julia: choose from ours, sklearn-1"),
        (["--peers", "threads,julia"], "--peers julia: choose from threads, local"),
        (["--sizes", "1000,9"], "--sizes 1000,9: choose from 1000 to 10000000000"),
        (["--sizes", "1000", "--data", "kaggle"], "leave out --data or --sizes"),
        (["--sizes", "1000", "--estimators"], "--sizes has no effect with --estimators"),
        (["--copies", "3"], "--copies needs --estimators"),
        (["--preset", "taste"], "--preset needs --estimators"),
        (["--ratings", "r.csv"], "--ratings needs --estimators"),
        (["--scaling", "--peers", "pandas"], "--peers has no effect with --scaling"),
        (["--scaling", "--data", "kaggle"], "--data has no effect with --scaling"),
        (["--scaling", "--sizes", "1000,2000"], "--sizes 1000,2000: pass at least three"),
        (["--scaling", "--estimators"], "not allowed with argument"),
    ],
)
def test_wrong_usage(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    try:
        status = benchmark.main([*options, "--out", str(tmp_path / "out")])
    except SystemExit as error:  # argparse exits by itself
        status = error.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_library_messages_name_fields() -> None:
    with pytest.raises(UsageError, match=r"^copies 0,2: choose from 1 to 9$"):
        results.check_numbers("copies", [0, 2], 1, 9)


def test_repeated_values_count_once() -> None:
    assert results.check_numbers("sizes", [5, 2, 5], 1, 9) == [5, 2]
    assert results.check_peers(["b", "a", "b"], ["a", "b", "c"]) == ["b", "a"]
    assert results.check_peers(None, ["a", "b"]) == ["a", "b"]


def test_results_are_written_and_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with results.open_folder(out, overwrite=False):
        written = results.write_results(out, "a table\n", {"seconds": [1.5]}, b"png")
    names = ["benchmark.md", "benchmark.png", "benchmark.json"]
    assert [path.name for path in written.files] == names
    assert (out / "benchmark.md").read_text() == written.table == "a table\n"
    assert (out / "benchmark.png").read_bytes() == b"png"
    assert json.loads((out / "benchmark.json").read_text()) == {"seconds": [1.5]}
    with pytest.raises(UsageError, match="already holds a benchmark: pass overwrite"):
        with results.open_folder(out, overwrite=False):
            pytest.fail("the folder was opened")
    with results.open_folder(out, overwrite=True):
        results.write_results(out, "another\n", {})
    assert (out / "benchmark.md").read_text() == "another\n"


def test_a_figure_of_an_earlier_benchmark_is_removed(tmp_path: Path) -> None:
    results.write_results(tmp_path, "table", {}, b"png")
    written = results.write_results(tmp_path, "table", {})
    assert [path.name for path in written.files] == ["benchmark.md", "benchmark.json"]
    assert not (tmp_path / "benchmark.png").exists()


def test_an_error_leaves_no_new_folder_but_keeps_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(ZeroDivisionError):
            with results.open_folder(tmp_path / name, overwrite=False):
                raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_foreign_files_are_kept(tmp_path: Path, capsys) -> None:
    (tmp_path / "benchmark.md").write_text("mine")
    assert benchmark.main(["--overwrite", "--out", str(tmp_path)]) == 2
    assert "benchmark.md: exists without benchmark.json: move it away" in capsys.readouterr().err
    assert (tmp_path / "benchmark.md").read_text() == "mine"


@pytest.mark.parametrize("content", ["run.json", ".work"])
def test_the_folder_of_a_run_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / content).mkdir()
    with pytest.raises(UsageError, match="holds another job's run: choose another out"):
        with results.open_folder(tmp_path, overwrite=True):
            pytest.fail("the folder was opened")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file: choose a folder for out"):
        with results.open_folder(tmp_path / "file", overwrite=True):
            pytest.fail("the folder was opened")
