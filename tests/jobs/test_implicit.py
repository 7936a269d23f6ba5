"""Logs without ratings: each row counts one, or has a count; against plain pandas."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import choose_k, convert, segment

#: 40 people, 12 products in 4 departments; some are bought several times.
LOG = pd.DataFrame(
    [
        (f"m{person}", f"product {product}", 1 + (person * product) ** 2 % 3_000, 1_000 + person)
        for person in range(40)
        for product in range(12)
        for _ in range(1 + (product == 3))
        if (person * 5 + product * product) % (3 + person % 4) == 0
    ],
    columns=["member", "product", "plays", "time"],
)
DEPARTMENTS = {
    f"product {p}": ["Dairy", "Bakery", "Drinks", "Fruit, fresh"][p % 4] for p in range(12)
}
WORDS = """
[words]
item = "product"
items = "products"
category = "department"
categories = "departments"
ratings = "purchases"
"""


@pytest.fixture
def products(tmp_path: Path) -> Path:
    path = tmp_path / "products.csv"
    pd.DataFrame(DEPARTMENTS.items(), columns=["product", "department"]).to_csv(path, index=False)
    return path


def write_log(folder: Path, form: str) -> tuple[Path, list[str]]:
    """Write the log in a form; return the file, and the options that read it."""
    columns = "user=member,item=product"
    if form == "parquet":
        LOG.to_parquet(folder / "log.parquet")
        return folder / "log.parquet", ["--columns", columns]
    if form == "no header":
        LOG.to_csv(folder / "log.csv", index=False, header=False, sep=";")
        return folder / "log.csv", ["--no-header", "--columns", "user=1,item=2,time=4"]
    text = LOG.to_csv(index=False, lineterminator="\r\n" if form == "CR LF" else "\n")
    if form == "gzip":
        (folder / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
        return folder / "log.csv.gz", ["--columns", columns]
    if form == "quotes":
        text = "\n".join(
            ",".join(f'"{field}"' for field in line.split(",")) for line in text.splitlines()
        )
    (folder / "log.csv").write_bytes(text.encode())
    return folder / "log.csv", ["--columns", columns]


def run(out: Path, log: Path, products: Path, *options: str) -> pd.DataFrame:
    arguments = ["--data", str(log), "--out", str(out), "--k", "3", "--implicit", "--quiet"]
    table = ["--catalogue", str(products), "--item", "product", "--category", "department"]
    assert segment.main([*arguments, *table, *options]) == 0
    return pd.read_parquet(out / "assignments.parquet").set_index("userId")


@pytest.mark.parametrize("form", ["plain", "parquet", "gzip", "CR LF", "no header", "quotes"])
def test_each_row_counts_one(tmp_path: Path, products: Path, form: str) -> None:
    log, options = write_log(tmp_path, form)
    users = run(tmp_path / "out", log, products, *options)
    expected = LOG.groupby("member").size()
    pd.testing.assert_series_equal(users["items"], expected, check_names=False, check_dtype=False)
    assert (users["mean_rating"] == 1).all()
    department = LOG["product"].map(DEPARTMENTS)
    for name in {*DEPARTMENTS.values()}:
        members = {*LOG["member"][department == name]}
        assert {*users.index[users[name] == 1]} == members
        assert {*users.index[users[name].isna()]} == {*users.index} - members
    segments = json.loads((tmp_path / "out/segments.json").read_text())
    for record in segments:
        own = users[users["segment"] == record["segment"]]
        assert record["median_items_per_user"] == own["items"].median()
        for name, figures in record["categories"].items():
            # The mean is the share of the segment's users who bought from the department.
            share = own[name].notna().mean()
            assert figures["mean"] == pytest.approx(share)
            assert figures["coverage"] == pytest.approx(share)
            assert (name in record["high_rated"]) == (share >= 0.56)


@pytest.mark.parametrize("form", ["plain", "parquet", "gzip"])
def test_counts_become_points(tmp_path: Path, products: Path, form: str, capsys) -> None:
    log, _ = write_log(tmp_path, form)
    columns = "user=member,item=product,rating=plays"
    users = run(tmp_path / "out", log, products, "--columns", columns)
    points = (1 + np.log10(LOG["plays"])).clip(1, 5)
    expected = points.groupby(LOG["member"]).mean()
    np.testing.assert_allclose(users["mean_rating"], expected.loc[users.index])
    by_department = points.groupby([LOG["member"], LOG["product"].map(DEPARTMENTS)]).mean()
    for (member, name), value in by_department.items():
        assert users.loc[member, name] == pytest.approx(value, rel=1e-6)
    assert "points" in capsys.readouterr().out
    text = (tmp_path / "out/report.md").read_text()
    assert "ratings: counts as points: 1 up to 1, one more per factor of ten, 5 at most" in text


def test_how_rows_count_is_told(tmp_path: Path, products: Path, capsys) -> None:
    log, options = write_log(tmp_path, "plain")
    arguments = ["--data", str(log), "--out", str(tmp_path / "out"), "--implicit", *options]
    table = ["--catalogue", str(products), "--item", "product", "--category", "department"]
    assert choose_k.main([*arguments, *table, "--k-range", "2-3"]) == 0
    assert "note: the rows are no ratings: each row counts 1" in capsys.readouterr().err


def test_reports_speak_of_the_data_alone(tmp_path: Path, products: Path, capsys) -> None:
    log, options = write_log(tmp_path, "plain")
    (tmp_path / "words.toml").write_text(WORDS)
    run(tmp_path / "out", log, products, *options, "--playbook", str(tmp_path / "words.toml"))
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        text = re.sub(r"<style>.*?</style>|base64,[^\"]*", "", text, flags=re.DOTALL)
        # The fact that there are none, and the advice for it, may be named.
        for phrase in ("figures/genres.png", "ratings: none", ">ratings</th>", "no ratings"):
            text = text.replace(phrase, "")
        assert not re.search(r"movie|film|watch|viewer|genre|\bstars?\b|rating", text.lower())
        assert "departments" in text.lower()
    table = capsys.readouterr().out
    assert "purchases/user  median  departments of ≥ 56%" in table
    assert f"{len(LOG):,} purchases by" in table


def test_the_log_is_its_own_catalogue(tmp_path: Path) -> None:
    log, options = write_log(tmp_path, "no header")
    table = ["--catalogue", str(log), "--item", "2", "--category", "2"]
    arguments = ["--data", str(log), "--out", str(tmp_path / "out"), "--k", "2", "--quiet"]
    assert segment.main([*arguments, "--implicit", *options, *table]) == 0
    users = pd.read_parquet(tmp_path / "out/assignments.parquet").set_index("userId")
    bought = LOG.groupby(["member", "product"]).size().unstack()
    assert (users[bought.columns].notna() == bought.loc[users.index].notna()).all(axis=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--columns: names no column of ratings: add rating=NAME; all jobs but convert read"),
        (["--implicit", "--scale", "1:5"], "--scale is for ratings, and with --implicit there are"),
        (["--implicit", "--unrated", "0"], "--implicit: without a column of ratings there are no"),
        (["--implicit", "--preset", "taste"], "--implicit: without a column of ratings there are"),
    ],
)
def test_options_that_contradict_it(
    tmp_path: Path, options: list[str], message: str, capsys
) -> None:
    columns = ["--columns", "user=member,item=product"]
    assert segment.main(["--data", "x", "--out", str(tmp_path / "out"), *columns, *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")


def test_only_ratings_are_converted(tmp_path: Path, capsys) -> None:
    arguments = ["--data", "x", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        convert.main([*arguments, "--implicit"])
    assert caught.value.code == 2
    columns = ["--columns", "user=member,item=product"]
    assert convert.main([*arguments, *columns]) == 2
    assert "names no column of ratings: add rating=NAME" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["plain", "parquet"])
def test_counts_of_nothing(tmp_path: Path, products: Path, form: str, capsys) -> None:
    """Zeros are no plays; the error says how to leave them out."""
    log = LOG.assign(plays=LOG["plays"].where(LOG.index % 3 > 0, 0))
    path = tmp_path / f"log.{'csv' if form == 'plain' else form}"
    (log.to_parquet if form == "parquet" else log.to_csv)(path, index=False)
    columns = "user=member,item=product,rating=plays"
    table = ["--catalogue", str(products), "--item", "product", "--category", "department"]
    arguments = ["--data", str(path), "--out", str(tmp_path / "out"), "--implicit", *table]
    assert segment.main([*arguments, "--columns", columns]) == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert "counts are above 0, and these are 0: pass --unrated 0 to leave such rows out" in message
    users = run(tmp_path / "out", path, products, "--columns", columns, "--unrated", "0")
    assert users["items"].sum() == (log["plays"] > 0).sum()


def test_counts_with_commas_between_thousands(tmp_path: Path, products: Path, capsys) -> None:
    log = LOG.assign(plays=[f"{count:,}" for count in LOG["plays"]])
    log.to_csv(tmp_path / "log.csv", index=False)
    columns = ["--columns", "user=member,item=product,rating=plays"]
    table = ["--catalogue", str(products), "--item", "product", "--category", "department"]
    arguments = ["--data", str(tmp_path / "log.csv"), "--out", str(tmp_path / "out"), "--implicit"]
    assert segment.main([*arguments, *columns, *table]) == 3
    assert "may have commas between thousands: write them without" in capsys.readouterr().err


def test_a_unit_is_for_ratings(tmp_path: Path, products: Path, capsys) -> None:
    log, options = write_log(tmp_path, "plain")
    (tmp_path / "words.toml").write_text(WORDS + 'unit = "plays"\n')
    run(tmp_path / "out", log, products, *options, "--playbook", str(tmp_path / "words.toml"))
    assert "departments of ≥ 56%" in capsys.readouterr().out
