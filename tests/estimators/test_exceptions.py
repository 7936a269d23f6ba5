"""Too few distinct rows: the error says how many there are, wherever it was raised."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from segmentation import KMeans
from segmentation.estimators.exceptions import TooFewDistinctRowsError


@pytest.mark.parametrize(("rows", "n_distinct"), [([[0.0], [1.0]], 2), ([[3.0]] * 9, 1)])
def test_the_error_counts_distinct_rows(rows: list[list[float]], n_distinct: int) -> None:
    with pytest.raises(TooFewDistinctRowsError, match=f"use n_clusters={n_distinct}") as caught:
        KMeans(n_clusters=4, random_state=0).fit(np.array(rows))
    assert (caught.value.n_distinct, caught.value.n_clusters) == (n_distinct, 4)
    assert isinstance(caught.value, ValueError)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.n_distinct, str(copied)) == (n_distinct, str(caught.value))
