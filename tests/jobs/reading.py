"""Read ratings as the jobs do, up to the user statistics: what depends on the form of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client

from jobs import options, segment
from segmentation.datasets import layouts
from segmentation.datasets.catalogue import load_catalogue
from segmentation.features import aggregate
from segmentation.features.presets import category_means
from segmentation.pipeline.settings import Settings

Result = tuple[pd.DataFrame, dict[str, Any]]


def read(client: Client, data: Path | str, *arguments: str) -> Result:
    """Aggregate the ratings of a data set with the options of ``segment``.

    Returns
    -------
    tuple
        The columns of ``assignments.parquet`` that come from the ratings, and the same of the
        manifest.
    """
    parsed = segment.make_parser().parse_args(["--data", str(data), *arguments])
    settings = Settings(**options.parse_data(parsed), k=parsed.k)
    layout = layouts.detect_layout(settings.data, settings.ratings)
    catalogue = load_catalogue(layout, settings.effective_join)
    blocks, counts = aggregate.aggregate_ratings(
        client,
        layout,
        catalogue,
        deduplicate=settings.deduplicate,
        max_rejected=settings.max_rejected,
        partition_bytes=settings.partition_bytes,
    )
    frames = []
    for block in client.gather(blocks.statistics):
        is_string = block.users.dtype.kind == "S"
        users = [user.decode() for user in block.users] if is_string else block.users
        frame = pd.DataFrame({"userId": users, "items": block.items})
        frame["mean_rating"] = np.divide(block.rating_sum, block.items, dtype=np.float64)
        means = pd.DataFrame(category_means(block), columns=list(catalogue.categories))
        frames.append(pd.concat([frame, means], axis=1))
    record = {
        "rows": counts.record(),
        "items": counts.items,
        "data": {"fingerprint": layouts.fingerprint(layout.files)},
    }
    return pd.concat(frames, ignore_index=True), record


def assert_same_users(actual: Result, expected: Result) -> None:
    """Compare what comes from the ratings: users, counts and means, and the counts of rows."""
    frame, other = actual[0], expected[0]
    genres = list(other.columns)[list(other.columns).index("mean_rating") + 1 :]
    for name in ("userId", "items"):
        np.testing.assert_array_equal(frame[name], other[name])
    for name in ("mean_rating", *genres):
        np.testing.assert_allclose(frame[name].astype(float), other[name].astype(float), atol=1e-6)
    assert actual[1]["rows"] == expected[1]["rows"]
