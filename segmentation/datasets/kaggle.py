"""Download The Movies Dataset with the kagglehub client, which caches each file."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from segmentation.datasets.retry import describe_error
from segmentation.errors import DataError

if TYPE_CHECKING:
    import requests

#: The version is pinned, so that runs are reproducible and a cached copy needs no network.
HANDLE = "rounakbanik/the-movies-dataset/versions/7"
PAGE = "https://www.kaggle.com/datasets/rounakbanik/the-movies-dataset"

CATALOGUE_FILES = ("movies_metadata.csv", "links.csv")
DEFAULT_RATINGS = "ratings.csv"
#: Rows of the files of this version.
N_ROWS = {DEFAULT_RATINGS: 26_024_289, "ratings_small.csv": 100_004}

_MANUAL_DOWNLOAD = "download it from {page} and set {data} to its folder"


def download(ratings: str | None = DEFAULT_RATINGS, *, quiet: bool = False) -> str:
    """Download the ratings and the catalogue into kagglehub's cache and return their folder.

    Cached files need no request. kagglehub shows its own progress on stderr, resumes an
    interrupted download, and checks the MD5 that the server sends.

    Parameters
    ----------
    ratings
        ``ratings.csv`` (26 million rows, 677 MB) or ``ratings_small.csv`` (100,004 rows); None
        for the catalogue alone.
    quiet
        Show no progress.

    Raises
    ------
    DataError
        If Kaggle can't be reached, refuses access or lacks the file, if the file arrives
        corrupted, or if the cache can't be written.
    """
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # the only switch of kagglehub's progress bar
    logging.getLogger("kagglehub").setLevel(logging.ERROR)
    folder = ""
    for name in (*CATALOGUE_FILES, *([ratings] if ratings else [])):
        folder = os.path.dirname(_download_file(name))
    return folder


def check_rows(path: str, n_rows: int) -> str | None:
    """Return a warning if a downloaded file has another number of rows than Kaggle's.

    Examples
    --------
    >>> check_rows("v7/ratings_small.csv", 100_004)
    >>> print(check_rows("v7/ratings_small.csv", 99))
    v7/ratings_small.csv: has 99 rows, and Kaggle's 100,004: delete it and run again
    """
    expected = N_ROWS.get(os.path.basename(path), n_rows)
    if n_rows == expected:
        return None
    return f"{path}: has {n_rows:,} rows, and Kaggle's {expected:,}: delete it and run again"


def _download_file(name: str) -> str:
    """Download one file of the data set unless it is cached; return its path."""
    import kagglehub
    import requests
    from kagglehub.exceptions import DataCorruptionError

    try:
        return str(kagglehub.dataset_download(HANDLE, path=name))
    except requests.HTTPError as error:
        raise _make_http_error(name, error) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise DataError(
            "{name}: Kaggle can't be reached; check the network and HTTPS_PROXY, or "
            + _MANUAL_DOWNLOAD,
            "data",
            name=name,
            page=PAGE,
        ) from error
    except requests.RequestException as error:
        raise DataError(f"{name}: the download broke off; run again to resume it") from error
    except DataCorruptionError as error:
        raise DataError(
            f"{name}: the download is corrupted (its MD5 differs) and was deleted; run again"
        ) from error
    except OSError as error:
        raise _make_disk_error(name, error) from error
    except ValueError as error:
        # kagglehub raises it for settings and credentials that it can't parse.
        raise DataError(
            f"{name}: kagglehub failed ({describe_error(error)}); check ~/.kaggle/kaggle.json and "
            "the environment variables KAGGLE_*"
        ) from error


def _make_http_error(name: str, error: requests.HTTPError) -> DataError:
    status = None if error.response is None else error.response.status_code
    if status == 404:
        return DataError(
            f"{name}: no such file in {HANDLE} on Kaggle; use ratings.csv or ratings_small.csv"
        )
    if status in (401, 403):
        advice = (
            "Kaggle denies access (status {status}); set KAGGLE_USERNAME and KAGGLE_KEY or create "
            "~/.kaggle/kaggle.json (kaggle.com → Settings → API), or "
        )
    else:
        advice = "Kaggle answered with status {status}; try again later, or "
    return DataError(
        "{name}: " + advice + _MANUAL_DOWNLOAD, "data", name=name, status=status, page=PAGE
    )


def _make_disk_error(name: str, error: OSError) -> DataError:
    path = error.filename or "kagglehub's cache"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"{name}: no space left in {path}; free 0.7 GB, or set KAGGLEHUB_CACHE to a folder on "
            "a larger disk (the download resumes where it stopped)"
        )
    return DataError(
        f"{name}: can't be written to {path} ({error.strerror}); set KAGGLEHUB_CACHE to another "
        "folder"
    )
