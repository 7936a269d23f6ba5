"""The Movies Dataset through the kagglehub client: only the files that are needed, cached."""

from __future__ import annotations

import errno
import logging
import os

from segmentation.errors import DataError

#: The version is pinned, so that a run can be repeated and a cached copy needs no network.
HANDLE = "rounakbanik/the-movies-dataset/versions/7"
PAGE = "https://www.kaggle.com/datasets/rounakbanik/the-movies-dataset"

CATALOGUE_FILES = ("movies_metadata.csv", "links.csv")
DEFAULT_RATINGS = "ratings.csv"

_BY_HAND = f"download it by hand from {PAGE} and give --data the folder"


def download(ratings: str | None = DEFAULT_RATINGS, *, quiet: bool = False) -> str:
    """Fetch the ratings and the catalogue into kagglehub's cache and return their folder.

    Files that are cached already cost no request. kagglehub shows its own progress on stderr,
    resumes a download that broke off, and checks the MD5 that the server names.

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
        Without network, permission, space or such a file; each with what to do.
    """
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # the one switch that kagglehub's progress bar heeds
    import kagglehub
    import requests
    from kagglehub.exceptions import DataCorruptionError

    logging.getLogger("kagglehub").setLevel(logging.ERROR)
    folder = ""
    for name in (*CATALOGUE_FILES, *([ratings] if ratings else [])):
        try:
            folder = os.path.dirname(kagglehub.dataset_download(HANDLE, path=name))
        except requests.HTTPError as error:
            raise DataError(_http_message(name, error)) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise DataError(
                f"Kaggle can't be reached for {name}: check the network (and HTTPS_PROXY), "
                f"or {_BY_HAND}"
            ) from error
        except requests.RequestException as error:
            raise DataError(f"the download of {name} broke off: run it again to resume") from error
        except DataCorruptionError as error:
            raise DataError(
                f"{name} arrived damaged (its MD5 differs) and was deleted: run it again"
            ) from error
        except OSError as error:
            raise DataError(_disk_message(name, error)) from error
        except ValueError as error:
            # kagglehub says so of credentials that it can't read.
            raise DataError(f"{name}: {' '.join(str(error).split())}: mend the file") from error
    return folder


def _http_message(name: str, error: object) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 404:
        return f"Kaggle has no file {name} in {HANDLE}: use ratings.csv or ratings_small.csv"
    if status in (401, 403):
        return (
            f"Kaggle refuses {name} (status {status}): set KAGGLE_USERNAME and KAGGLE_KEY or "
            f"~/.kaggle/kaggle.json (kaggle.com → Settings → API), or {_BY_HAND}"
        )
    return f"Kaggle answers {name} with status {status}: try again later, or {_BY_HAND}"


def _disk_message(name: str, error: OSError) -> str:
    place = error.filename or "kagglehub's cache"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left for {name} in {place}: ratings.csv takes 0.7 GB; free some, or point "
            "KAGGLEHUB_CACHE at a larger disk (what has arrived is kept and resumed)"
        )
    return f"{name} can't be written to {place} ({error.strerror}): point KAGGLEHUB_CACHE elsewhere"
