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
    """

    def __init__(self, n_distinct: int, n_clusters: int, n_samples: int) -> None:
        super().__init__(
            f"{n_distinct} distinct rows for n_clusters={n_clusters} (n_samples={n_samples}): "
            + (f"use n_clusters={n_distinct} or fewer" if n_distinct else "pass at least one row")
        )
        self.n_distinct = n_distinct
        self.n_clusters = n_clusters
