"""The settings of a run, typed and validated once."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from segmentation.errors import UsageError
from segmentation.schema import MOST_SEGMENTS

PRESET_NAMES = ("engagement", "taste", "original")
JOINS = ("links", "direct")
#: Ratings of `--data synthetic` without a number: a minute's work on a small machine.
SYNTHETIC_ROWS = 1_000_000
#: stage → the settings that decide its results, beside the data itself; "run" is the whole.
_READING = {"join", "max_rejected", "deduplicate"}
_SEARCHING = {*_READING, "preset", "seed", "k_range"}
_KEYS = {
    "ratings": _READING,
    "choose_k": _SEARCHING,
    "kmeans": {*_SEARCHING, "k"},
    "pca": {*_READING, "preset"},
    "run": {*_SEARCHING, "k", "playbook"},
    "convert": {"max_rejected"},
}
#: The k that the five personas were found with; a search shows it for comparison.
COMPARED_K = 5
_SYNTHETIC_RANGE = 1_000, 10**10


@dataclass(frozen=True)
class Settings:
    """What a segmentation run is asked for; every result follows from these and the data.

    ``join`` None means what the preset calls for. ``max_rejected`` is a share of the rows.
    ``k_range`` is what ``k`` "auto" chooses from, both ends included. ``partition_bytes`` is None
    for the cluster's own, and ``memory_limit``, bytes for the whole run, for a share of what the
    machine has; results depend on neither.
    """

    data: str = "synthetic"
    ratings: str | None = None
    k: int | Literal["auto"] = 5
    k_range: tuple[int, int] = (2, 10)
    preset: str = "engagement"
    join: str | None = None
    seed: int = 0
    max_rejected: float = 0.01
    deduplicate: bool = False
    playbook: str | None = None
    partition_bytes: int | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.k != "auto" and not 1 <= self.k <= MOST_SEGMENTS:
            raise UsageError(f"--k {self.k}: choose from 1 to {MOST_SEGMENTS}, or auto")
        low, high = self.k_range
        if not 2 <= low < high <= MOST_SEGMENTS:
            raise UsageError(
                f"--k-range {low}-{high}: give two numbers that rise, from 2 to {MOST_SEGMENTS}"
            )
        if self.preset not in PRESET_NAMES:
            raise UsageError(f"--preset {self.preset}: choose from {', '.join(PRESET_NAMES)}")
        if self.join not in (None, *JOINS):
            raise UsageError(f"--join {self.join}: choose from {', '.join(JOINS)}")
        if self.preset == "original" and self.join == "links":
            raise UsageError(
                "--preset original is the direct join: leave --join out, or take "
                "--preset engagement, which is the same matrix with the links join"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: choose from 0 to {2**32 - 1}")
        if not 0 <= self.max_rejected <= 1:
            raise UsageError(f"--max-rejected {self.max_rejected:g}: give a share from 0 to 1")
        if self.partition_bytes is not None and self.partition_bytes < 1024:
            raise UsageError("--partition-size: at least 1 KiB")
        for option, value in (("--data", self.data), ("--ratings", self.ratings)):
            if value is not None and not value.strip():
                raise UsageError(f"{option}: is empty: name a source, or leave the option out")
        synthetic_rows(self.data)

    @property
    def effective_join(self) -> Literal["links", "direct"]:
        """The join that is made: asked for, or the preset's."""
        if self.join == "direct" or (self.join is None and self.preset == "original"):
            return "direct"
        return "links"

    def record(self) -> dict[str, Any]:
        """Return the settings as they stand in the manifest."""
        values = asdict(self)
        values["join"] = self.effective_join
        values["k_range"] = list(self.k_range)
        return values

    def key(self, stage: str) -> dict[str, Any]:
        """Return the settings that the results of a stage hang on."""
        names = set(_KEYS[stage])
        if "k" in names and self.k != "auto":
            names.discard("k_range")
        return {name: value for name, value in self.record().items() if name in names}


@dataclass(frozen=True)
class Execution:
    """How a job is run; no result hangs on it.

    ``cluster`` is a file of ``cluster_config/`` by its name, or the path of one; ``address`` that
    of a scheduler that stands; ``performance_report`` where Dask's own report goes.
    """

    cluster: str = "threads"
    address: str | None = None
    resume: bool = False
    overwrite: bool = False
    performance_report: str | None = None
    debug: bool = False


def synthetic_rows(data: str) -> int | None:
    """Return the rows of ``synthetic`` or ``synthetic:ROWS``; None for any other source."""
    kind, colon, rows = data.partition(":")
    if kind != "synthetic":
        return None
    if not colon:
        return SYNTHETIC_ROWS
    if not re.fullmatch(r"[0-9]{1,3}([_,]?[0-9]{3})*|[0-9]{1,20}", rows):
        raise UsageError(f"--data {data}: give the number of ratings, as in synthetic:1000000")
    return validate_synthetic_rows(int(rows.replace("_", "").replace(",", "")), f"--data {data}")


def validate_synthetic_rows(rows: int, told: str) -> int:
    """Return a number of synthetic ratings that can be made.

    Raises
    ------
    UsageError
        If it can't, with ``told``, the option that gave it.
    """
    low, high = _SYNTHETIC_RANGE
    if not low <= rows <= high:
        raise UsageError(f"{told}: from {low:,} to {high:,} ratings can be made")
    return rows
