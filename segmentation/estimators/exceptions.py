"""Exceptions of the estimators."""

from __future__ import annotations


class TooFewDistinctRowsError(ValueError):
    """``X`` has fewer distinct rows than clusters were requested.

    Attributes
    ----------
    n_distinct : int
        Distinct rows of positive weight in ``X``: the largest possible number of clusters.
    n_clusters : int
        Number of clusters requested.
    n_samples : int
        Rows in ``X``.
    """

    def __init__(self, n_distinct: int, n_clusters: int, n_samples: int) -> None:
        super().__init__(n_distinct, n_clusters, n_samples)
        self.n_distinct = n_distinct
        self.n_clusters = n_clusters
        self.n_samples = n_samples

    def __str__(self) -> str:
        remedy = (
            f"use n_clusters={self.n_distinct} or fewer"
            if self.n_distinct
            else "pass at least one row"
        )
        rows = "row" if self.n_distinct == 1 else "rows"
        return (
            f"{self.n_distinct} distinct {rows} for n_clusters={self.n_clusters} "
            f"(n_samples={self.n_samples}): {remedy}"
        )
