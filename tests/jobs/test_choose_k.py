"""The search for k, as a job and as `--k auto`: files, output, resuming, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.cluster
import sklearn.metrics

from jobs import choose_k, segment
from segmentation.pipeline import stages
from segmentation.schema import KAGGLE_GENRES
from tests.conftest import write_tiny


@pytest.fixture(scope="module")
def actual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("choice") / "out"
    arguments = ["--data", "synthetic:50000", "--k-range", "2-4", "--quiet", "--out", str(out)]
    assert choose_k.main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def automatic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("auto") / "out"
    arguments = ["--data", "synthetic:50000", "--k", "auto", "--k-range", "2-4", "--quiet"]
    assert segment.main([*arguments, "--out", str(out)]) == 0
    return out


def test_the_folder(actual: Path) -> None:
    assert sorted(str(p.relative_to(actual)) for p in actual.rglob("*") if p.is_file()) == [
        "choose_k.csv",
        "choose_k.json",
        "figures/choose_k.png",
        "run.json",
    ]
    manifest = json.loads((actual / "run.json").read_text())
    record = json.loads((actual / "choose_k.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["job"] == "choose-k"
    assert manifest["data"]["synthetic"] is True
    assert manifest["choose_k"] == record
    table = pd.read_csv(actual / "choose_k.csv")
    assert table["k"].tolist() == [2, 3, 4, 5], "5 is added for comparison"
    assert table["inertia"].is_monotonic_decreasing
    assert table.loc[table["recommended"], "k"].tolist() == [record["recommended"]]
    assert 2 <= record["recommended"] <= 4
    assert f"k = {record['recommended']}" in record["reason"]


def test_the_figures_are_those_of_scikit_learn(actual: Path, automatic: Path) -> None:
    users = pd.read_parquet(automatic / "assignments.parquet")
    X = users[list(KAGGLE_GENRES)].fillna(0).to_numpy()
    record = json.loads((actual / "choose_k.json").read_text())
    for candidate in record["candidates"]:
        model = sklearn.cluster.KMeans(candidate["k"], n_init=20, random_state=0).fit(X)
        assert candidate["inertia"] <= model.inertia_ * 1.001
        if candidate["k"] == 2:
            score = sklearn.metrics.davies_bouldin_score(X, model.labels_)
            assert candidate["davies_bouldin"] == pytest.approx(score, rel=0.01)


def test_auto_is_the_recommended_k(actual: Path, automatic: Path, tmp_path: Path) -> None:
    record = json.loads((actual / "choose_k.json").read_text())
    manifest = json.loads((automatic / "run.json").read_text())
    assert manifest["settings"]["k"] == "auto"
    assert manifest["choose_k"] == record
    assert manifest["kmeans"]["n_clusters"] == record["recommended"]
    same = next(c for c in record["candidates"] if c["k"] == record["recommended"])
    assert manifest["kmeans"]["inertia"] == pytest.approx(same["inertia"])
    assert (automatic / "figures" / "choose_k.png").read_bytes()[:4] == b"\x89PNG"
    page = (automatic / "report.html").read_text()
    assert record["reason"].split(":")[0] in page
    assert "figures/choose_k.png" in (automatic / "report.md").read_text()
    # The same run with that k gives the same segments.
    out = tmp_path / "out"
    k = str(record["recommended"])
    assert segment.main(["--data", "synthetic:50000", "--k", k, "--quiet", "--out", str(out)]) == 0
    one, other = (pd.read_parquet(f / "assignments.parquet") for f in (automatic, out))
    pd.testing.assert_frame_equal(one, other)
    assert not (out / "figures" / "choose_k.png").exists()


def test_agreement_with_the_planted_segments(automatic: Path) -> None:
    manifest = json.loads((automatic / "run.json").read_text())
    folder = Path(manifest["data"]["ratings"]).parent
    users = pd.read_parquet(automatic / "assignments.parquet")
    planted = pd.read_parquet(folder / "planted.parquet").set_index("userId")["segment"]
    expected = sklearn.metrics.adjusted_rand_score(
        planted.loc[users["userId"]].to_numpy(), users["segment"].to_numpy()
    )
    assert manifest["kmeans"]["planted_ari"] == pytest.approx(expected)
    assert "planted segments" in (automatic / "report.html").read_text()


def test_the_terminal(actual: Path, capsys) -> None:
    arguments = ["--data", "synthetic:50000", "--k-range", "2-4", "--out", str(actual)]
    assert choose_k.main(arguments) == 2
    assert "already holds a finished run: pass --resume" in capsys.readouterr().err
    stamp = (actual / "run.json").stat().st_mtime_ns
    assert choose_k.main([*arguments, "--resume"]) == 0
    output = capsys.readouterr()
    assert "nothing is left to do" in output.err
    record = json.loads((actual / "choose_k.json").read_text())
    assert record["reason"] in " ".join(output.out.split())
    assert f"→  {record['recommended']}  " in output.out
    assert "Synthetic data" in output.out
    assert output.out.endswith(f"figure: {actual}/figures/choose_k.png\n")
    assert (actual / "run.json").stat().st_mtime_ns == stamp
    for change in (["--k-range", "2-5"], ["--seed", "1"], ["--preset", "taste"]):
        assert choose_k.main([*arguments, *change, "--resume"]) == 2
        assert "was run with another" in capsys.readouterr().err
    assert segment.main(["--data", "synthetic:50000", "--resume", "--out", str(actual)]) == 2
    assert "holds a run of choose-k: choose another --out" in capsys.readouterr().err


def test_a_finished_search_is_resumed(tmp_path: Path, capsys, monkeypatch) -> None:
    from segmentation.pipeline import stages

    out = tmp_path / "out"
    arguments = ["--data", "synthetic:20000", "--k", "auto", "--k-range", "2-3", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit_pca", lambda X: 1 / 0)
        assert segment.main(arguments) == 1
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("segmentation.estimators.model_selection.choose_k", lambda *_: 1 / 0)
        assert segment.main([*arguments, "--resume"]) == 0
    assert "k: taken from the finished stage" in capsys.readouterr().err
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["choose_k"]["range"] == [2, 3]
    assert [c["k"] for c in manifest["choose_k"]["candidates"]] == [2, 3, 5]


def test_a_search_that_is_no_longer_needed(tmp_path: Path, capsys, monkeypatch) -> None:
    from segmentation.reporting import outputs

    out = tmp_path / "out"
    arguments = ["--data", "synthetic:20000", "--out", str(out), "--quiet"]
    searching = [*arguments, "--k-range", "2-3"]
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_segments", lambda *_: 1 / 0)
        assert segment.main([*searching, "--k", "auto"]) == 1
    assert choose_k.main([*searching, "--resume"]) == 2
    assert (
        "holds a run of segment: choose another --out, or pass --overwrite"
        in capsys.readouterr().err
    )
    assert segment.main([*arguments, "--k", "3", "--resume"]) == 0
    manifest = json.loads((out / "run.json").read_text())
    assert "choose_k" not in manifest
    assert not (out / "figures" / "choose_k.png").exists()


def test_too_few_users(tmp_path: Path, capsys) -> None:
    data = write_tiny(tmp_path / "t")
    out = tmp_path / "out"
    assert choose_k.main(["--data", str(data), "--out", str(out), "--quiet"]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "error: 2 users for --k-range 2-10: there is nothing to choose from: run segment with --k 2"
    )
    assert not (out / "run.json").exists()


def test_identical_users(tmp_path: Path, capsys) -> None:
    data = write_tiny(tmp_path / "t")
    rows = ["userId,movieId,rating,timestamp"]
    rows += [f"{user},10,{1.0 + user % 2},7" for user in range(1, 31)]
    (data / "ratings.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    assert choose_k.main(["--data", str(data), "--out", str(out), "--quiet"]) == 3
    warning, _, line = capsys.readouterr().err.splitlines()
    assert warning.startswith("  warning: 100% of the users have a single rating, which says")
    assert line == (
        "error: 2 distinct users for --k-range 2-10: there is nothing to choose from: "
        "run segment with --k 2"
    )


def test_a_range_without_auto(tmp_path: Path, capsys) -> None:
    arguments = ["--data", "synthetic:20000", "--k-range", "2-3", "--out", str(tmp_path / "out")]
    assert segment.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("error: --k-range is what --k auto chooses from: pass both, or leave it out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("5", "'5' is not a range: give two numbers, as in 2-10"),
        ("2-x", "is not a range"),
        ("-3-4", "is not a range"),
        ("1-4", "--k-range 1-4: give two rising numbers from 2 to 50"),
        ("7-3", "give two rising numbers"),
        ("2-51", "from 2 to 50"),
    ],
)
def test_bad_ranges(given: str, message: str, tmp_path: Path, capsys) -> None:
    arguments = [f"--k-range={given}", "--out", str(tmp_path / "out"), "--quiet"]
    try:
        status: object = choose_k.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_the_record_comes_back_as_a_search(actual: Path) -> None:
    record = json.loads((actual / "choose_k.json").read_text())
    search = stages.search_from_record(record)
    assert json.loads(json.dumps(stages.search_record(search))) == record
    assert np.isfinite([f.inertia for f in search.figures]).all()
