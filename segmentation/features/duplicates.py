"""Which ratings are superseded: the same user rated the same movie again, later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segmentation.features.ids import coded
from segmentation.schema import LINE, MOVIE, RATING, TIMESTAMP, USER

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: The number of the piece that a row was read from; a column of ours.
PIECE = "piece"


def superseded(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows a later rating of the same movie by the same user takes the place of.

    The latest has the largest timestamp; of those the one with the most stars, so that no order
    of the rows decides what counts, and of the same again the last in the files.

    Parameters
    ----------
    rows
        Columns ``userId``, ``movieId``, ``rating``, ``timestamp``, ``piece`` and ``line``.

    Returns
    -------
    ndarray of shape (n_rows,), bool
    """
    keys = [rows[name].to_numpy() for name in (LINE, PIECE, RATING, TIMESTAMP, MOVIE)]
    keys.append(coded(rows[USER])[1])
    order = np.lexsort(keys)
    movies, users = keys[4][order], keys[5][order]
    again = (movies[1:] == movies[:-1]) & (users[1:] == users[:-1])
    found = np.zeros(len(rows), np.bool_)
    found[order[:-1]] = again
    return found
