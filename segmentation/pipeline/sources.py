"""Where a run's data comes from: made, downloaded, or named by its place."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segmentation.datasets import discovery, layouts
from segmentation.deploy import local
from segmentation.deploy.core import open_cluster
from segmentation.pipeline.settings import synthetic_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segmentation.datasets.layouts import Layout
    from segmentation.deploy.core import Cluster
    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress


def resolve_data(settings: Settings, cluster: Cluster, progress: Progress) -> Layout:
    """Find, download or make the data that the settings name.

    Workers on other machines are given paths that don't hang on where the job was started.
    """
    found = _located(settings, cluster, progress)
    return layouts.absolute_layout(found) if cluster.is_remote else found


@contextmanager
def _here(cluster: Cluster) -> Iterator[Any]:
    """Yield a client whose workers write to this machine's disk."""
    if not cluster.is_remote:
        yield cluster.client
        return
    import dask

    # Whatever the environment says of the other cluster is not for this one.
    with dask.config.set({"segmentation.cluster": {}}), open_cluster("threads") as own:
        yield own.client


def _located(settings: Settings, cluster: Cluster, progress: Progress) -> Layout:
    rows = synthetic_rows(settings.data)
    if rows is not None:
        from segmentation.datasets.synthetic import writer

        place = local.cache_dir() / f"synthetic-v{writer.VERSION}-{rows}-seed{settings.seed}"
        if not writer.is_written(rows, settings.seed, place):
            with (
                progress.stage("synthesize", "synthetic data") as stage,
                _here(cluster) as client,
            ):
                writer.write_dataset(
                    rows,
                    settings.seed,
                    place,
                    client,
                    lambda done, total: stage.update(done, total, "rows"),
                )
                stage.note = f"{rows:,} ratings kept in {place}"
        return layouts.detect_layout(str(place), settings.ratings)
    if settings.data == "kaggle":
        from segmentation.datasets import kaggle

        with progress.stage("download", "Kaggle") as stage:
            # Another ratings file for the same catalogue need not be one of Kaggle's.
            own = settings.ratings is not None and discovery.ratings_exist(settings.ratings)
            name = None if own else settings.ratings or kaggle.DEFAULT_RATINGS
            folder = kaggle.download(name, quiet=not progress.live)
            stage.note = folder
        return layouts.detect_layout(folder, settings.ratings)
    return layouts.detect_layout(settings.data, settings.ratings)
