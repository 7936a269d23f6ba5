"""Resolve the data of a run: generate it, download it, or find it at a path or URL."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from segmentation.datasets import discovery, layouts
from segmentation.deploy.core import open_cluster
from segmentation.deploy.local import cache_dir
from segmentation.pipeline.settings import parse_synthetic_rows
from segmentation.storage.atomic import hold_lock
from segmentation.tasks import set_dask_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from segmentation.datasets.layouts import Layout
    from segmentation.deploy.core import Cluster
    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress


def resolve_data(settings: Settings, cluster: Cluster, progress: Progress) -> Layout:
    """Generate, download or find the data that the settings name.

    Workers on other machines get absolute paths, since their working directory is another.
    """
    rows = parse_synthetic_rows(settings.data)
    if settings.has_own_files:
        folder = "."
    elif rows is not None:
        folder = _generate_synthetic(rows, settings.seed, cluster, progress)
    elif settings.data == "kaggle":
        folder = _download_kaggle(settings.ratings, progress)
    else:
        folder = settings.data
    layout = layouts.detect_layout(
        folder, settings.ratings, reading=settings.reading, catalogue=settings.catalogue_options
    )
    return layouts.absolute_layout(layout) if cluster.is_remote else layout


def _generate_synthetic(rows: int, seed: int, cluster: Cluster, progress: Progress) -> str:
    """Generate a synthetic data set, unless the cache has it; return its folder."""
    from segmentation.datasets.synthetic import writer

    folder = cache_dir() / f"synthetic-v{writer.VERSION}-{rows}-seed{seed}"
    if writer.is_written(rows, seed, folder):
        return str(folder)
    # Jobs that start at the same time must not write the same files.
    with hold_lock(folder.with_name(f"{folder.name}.lock")):
        if not writer.is_written(rows, seed, folder):
            with (
                progress.stage("synthesize", "synthetic data") as stage,
                _open_local_client(cluster) as client,
            ):
                writer.write_dataset(
                    rows,
                    seed,
                    folder,
                    client,
                    lambda done, total: stage.update(done, total, "rows"),
                    remedy="set XDG_CACHE_HOME to a folder on another disk",
                )
                stage.note = f"{rows:,} ratings saved to {folder}"
    return str(folder)


@contextmanager
def _open_local_client(cluster: Cluster) -> Iterator[Client]:
    """Yield a client whose workers write to this machine's disk."""
    if not cluster.is_remote:
        yield cluster.client
        return
    # The environment's settings are meant for the remote cluster, not for this one.
    with set_dask_config({"segmentation.cluster": {}}), open_cluster("threads") as local:
        yield local.client


def _download_kaggle(ratings: str | None, progress: Progress) -> str:
    """Download Kaggle's data set, unless it is cached; return its folder."""
    from segmentation.datasets import kaggle

    with progress.stage("download", "Kaggle") as stage:
        # If the ratings are the user's own file, only the catalogue is downloaded.
        if ratings is not None and discovery.has_files(ratings):
            ratings_name = None
        else:
            ratings_name = ratings or kaggle.DEFAULT_RATINGS
        folder = kaggle.download(ratings_name, quiet=not progress.live)
        stage.note = folder
    return folder
