"""Answers that share no code with the program: plain pandas and the standard library."""

from __future__ import annotations

import ast
import csv
import math
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd


def kaggle_genres(folder: Path) -> dict[int, list[str]]:
    """TMDB id → genres, by pandas' own CSV reader; malformed ids dropped, first record stands."""
    frame = pd.read_csv(folder / "movies_metadata.csv", low_memory=False)
    frame = frame[pd.to_numeric(frame["id"], errors="coerce").notna()]
    frame["id"] = frame["id"].astype(int)
    frame = frame.drop_duplicates("id")
    return {
        movie: [entry["name"] for entry in ast.literal_eval(genres)]
        for movie, genres in zip(frame["id"], frame["genres"], strict=True)
    }


def kaggle_movies(folder: Path, join: str) -> dict[int, list[str]]:
    """MovieLens id → genres under either join."""
    genres = kaggle_genres(folder)
    if join == "direct":
        return genres
    name = "links.csv" if (folder / "links.csv").exists() else "links_small.csv"
    links = pd.read_csv(folder / name).dropna(subset=["tmdbId"])
    return {
        int(movie): genres[int(tmdb)]
        for movie, tmdb in zip(links["movieId"], links["tmdbId"], strict=True)
        if int(tmdb) in genres
    }


def grouplens_movies(folder: Path) -> dict[int, list[str]]:
    frame = pd.read_csv(folder / "movies.csv")
    return {
        int(movie): [g for g in genres.split("|") if g != "(no genres listed)"]
        for movie, genres in zip(frame["movieId"], frame["genres"], strict=True)
    }


def user_genre_means(ratings: pd.DataFrame, movies: dict[int, list[str]]) -> pd.DataFrame:
    """Mean rating a (user, genre) by merge, explode and groupby; NaN where unseen."""
    used = ratings[ratings["movieId"].isin(movies)]
    exploded = used.assign(genre=used["movieId"].map(movies)).explode("genre").dropna()
    wide = exploded.pivot_table(index="userId", columns="genre", values="rating", aggfunc="mean")
    return wide.reindex(sorted(used["userId"].unique()))


def rating_of(line: str, scale: tuple[float, float] = (0.5, 5.0)) -> tuple[int, int, float] | None:
    """Read one CSV line of four fields with the standard library, or None if it is no rating."""
    row = next(csv.reader([line]), [])
    while len(row) > 4 and not row[-1].strip():
        row.pop()
    if len(row) != 4:
        return None
    fields = [field.strip(" \t") for field in row]
    user, movie = integer_of(fields[0]), integer_of(fields[1])
    if user is None or movie is None or "_" in fields[2] or not fields[2].isascii():
        return None
    try:
        stars = float(fields[2])
    except ValueError:
        return None
    if not (math.isfinite(stars) and scale[0] <= stars <= scale[1]):
        return None
    return user, movie, stars


def integer_of(field: str) -> int | None:
    """A 64-bit integer without zeros before it, perhaps written as a float."""
    is_decimal = re.fullmatch(r"-?(0|[1-9][0-9]*)(\.0*)?", field)
    if not is_decimal and not re.fullmatch(r"[0-9](\.[0-9]+)?[eE]\+?[0-9]{1,2}", field):
        return None
    value = Decimal(field)
    is_whole = value == value.to_integral_value()
    return int(value) if is_whole and -(2**63) <= value < 2**63 else None


def inertia(X: np.ndarray, centers: np.ndarray) -> float:
    """Sum of squared distances to the nearest centre, by broadcasting."""
    return float(((X[:, None].astype(float) - centers[None]) ** 2).sum(axis=2).min(axis=1).sum())
