"""The settings of a run, typed and validated once."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from segmentation.datasets.reading import CatalogueOptions, IdKind, ReadingOptions
from segmentation.datasets.text_form import TextOptions
from segmentation.errors import UsageError
from segmentation.features.presets import PRESETS
from segmentation.schema import MOST_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

JOINS = ("links", "direct")
#: Ratings of ``data="synthetic"`` without a number: under a minute's work on a small machine.
SYNTHETIC_ROWS = 1_000_000
_SYNTHETIC_RANGE = 1_000, 10**10
#: The k that the five personas were found with; a search shows it for comparison.
COMPARED_K = 5

_FORM = {
    *("columns", "separator", "decimal", "encoding", "has_header", "scale", "unrated", "ids"),
    "implicit",
    *("item", "category", "category_separator", "category_weight", "top_categories"),
}
_RATINGS = {"join", "max_rejected", "deduplicate", *_FORM}
_SEARCH = {*_RATINGS, "preset", "seed", "k_range", "min_ratings"}
#: stage → the settings, besides the data, that its result depends on; "run" is the whole job.
_STAGE_KEYS = {
    "ratings": _RATINGS,
    "choose_k": _SEARCH,
    "kmeans": {*_SEARCH, "k"},
    "quality": {*_SEARCH, "k"},
    "pca": {*_RATINGS, "preset", "min_ratings"},
    "run": {*_SEARCH, "k", "playbook"},
    "score": {*_RATINGS, "preset", "min_ratings"},
    "convert": {"max_rejected", *_FORM},
}


@dataclass(frozen=True)
class Settings:
    """What a run is asked for; every result follows from these and the data.

    Parameters
    ----------
    data
        ``synthetic``, ``synthetic:ROWS``, ``kaggle``, or a folder or URL.
    ratings
        Another ratings file for the same catalogue; None for what the layout holds.
    k
        Number of segments, or ``"auto"`` to choose it from ``k_range``, both ends included.
    preset
        Which feature matrix is clustered; one of
        :data:`segmentation.features.presets.PRESETS`.
    join
        One of :data:`JOINS`; None for the one that the preset calls for.
    max_rejected
        The run fails if a larger share of the rows is rejected.
    deduplicate
        Keep only the latest rating of each item by each user.
    playbook
        Path of a playbook; None for the project's.
    min_ratings
        Users with fewer ratings are assigned to segments, and don't shape them.
    columns, separator, decimal, encoding, has_header
        The form of text files, see :class:`segmentation.datasets.reading.ReadingOptions`; None for
        what is recognized.
    scale, unrated, ids, implicit
        How ratings and ids are read, see there.
    catalogue, item, category, category_separator, category_weight, top_categories
        An own table of items, see :class:`segmentation.datasets.reading.CatalogueOptions`.
    partition_bytes, memory_limit
        Bytes per partition and for the whole run; None leaves them to the memory budget. Results
        depend on neither.

    Raises
    ------
    UsageError
        If a value is out of range, or two contradict each other.
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
    min_ratings: int = 1
    columns: Mapping[str, str] | None = None
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    has_header: bool = True
    scale: tuple[float, float] | None = None
    unrated: tuple[float, ...] = ()
    ids: IdKind = "auto"
    implicit: bool = False
    catalogue: str | None = None
    item: str | None = None
    category: str | None = None
    category_separator: str | None = None
    category_weight: str | None = None
    top_categories: int | None = None
    partition_bytes: int | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.k != "auto" and not 1 <= self.k <= MOST_SEGMENTS:
            raise UsageError(
                "{k} {value}: choose from 1 to {most}, or auto",
                "k",
                value=self.k,
                most=MOST_SEGMENTS,
            )
        low, high = self.k_range
        if not 2 <= low < high <= MOST_SEGMENTS:
            raise UsageError(
                "{k_range} {low}-{high}: give two rising numbers from 2 to {most}",
                "k_range",
                low=low,
                high=high,
                most=MOST_SEGMENTS,
            )
        _check_choice("preset", self.preset, PRESETS)
        if self.join is not None:
            _check_choice("join", self.join, JOINS)
        if self.preset == "original" and self.join == "links":
            raise UsageError(
                "{preset} original uses the direct join: leave {join} out, or pass {preset} "
                "engagement, which is the same matrix with the links join",
                "preset",
                "join",
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(
                "{seed} {value}: choose from 0 to {most}",
                "seed",
                value=self.seed,
                most=2**32 - 1,
            )
        if not 0 <= self.max_rejected <= 1:
            raise UsageError(
                "{max_rejected} {value:g}: give a share from 0 to 1",
                "max_rejected",
                value=self.max_rejected,
            )
        if self.min_ratings < 1:
            raise UsageError(
                "{min_ratings} {value}: give at least 1", "min_ratings", value=self.min_ratings
            )
        if self.partition_bytes is not None and self.partition_bytes < 1024:
            raise UsageError("{partition_bytes}: give at least 1 KiB", "partition_bytes")
        _check_choice("ids", self.ids, get_args(IdKind))
        self._check_form()
        for field in ("data", "ratings", "catalogue", "item", "category"):
            value = getattr(self, field)
            if value is not None and not value.strip():
                raise UsageError(f"{{{field}}}: is empty: name a source, or leave it out", field)
            if value is not None and not _is_text(value):
                raise UsageError(
                    f"{{{field}}}: its name is not valid UTF-8: rename it, or link to it", field
                )
        if parse_synthetic_rows(self.data) and self.ratings and not self.catalogue:
            raise UsageError(
                "{ratings}: synthetic data have no catalogue for it: name the folder that has one "
                "as {data}, or a table of items as {catalogue}",
                *("ratings", "data", "catalogue"),
            )

    def _check_form(self) -> None:
        if self.scale is not None and not -math.inf < self.scale[0] < self.scale[1] < math.inf:
            raise UsageError(
                "{scale} {low:g}:{high:g}: give the lowest and the highest rating, as in 1:10",
                "scale",
                low=self.scale[0],
                high=self.scale[1],
            )
        has_ratings = "rating" in self.reading.roles
        if not self.implicit and not has_ratings:
            raise UsageError(
                "{columns}: names no column of ratings: add rating=NAME; all jobs but convert read "
                "rows without ratings with {implicit}",
                "columns",
                "implicit",
            )
        if self.implicit and self.scale is not None:
            raise UsageError(
                "{scale} is for ratings, and with {implicit} there are none: leave one of them out",
                "scale",
                "implicit",
            )
        if not has_ratings and (self.unrated or self.preset == "taste"):
            raise UsageError(
                "{implicit}: without a column of ratings there are no rows to leave out as "
                "{unrated}, and no taste for {preset}: leave them out, or name a column of counts "
                "with {columns} user=NAME,item=NAME,rating=NAME",
                *("implicit", "unrated", "preset", "columns"),
            )
        if self.decimal is not None:
            _check_choice("decimal", self.decimal, (".", ","))
        if not self.has_header and self.columns is None:
            raise UsageError(
                "{no_header}: say which column is which, as in {columns} user=1,item=2,rating=3",
                "no_header",
                "columns",
            )
        table = [self.catalogue, self.item, self.category]
        if any(table) and not all(table):
            raise UsageError(
                "{catalogue}, {item} and {category} belong together: name the table of items, the "
                "column with their ids, and that with their categories",
                "catalogue",
                "item",
                "category",
            )
        details = (self.category_separator, self.category_weight, self.top_categories)
        if not any(table) and any(details):
            raise UsageError(
                "{category_separator}, {category_weight} and {top_categories} need {catalogue}",
                "category_separator",
                "category_weight",
                "top_categories",
                "catalogue",
            )
        if self.top_categories is not None and self.top_categories < 2:
            raise UsageError("{top_categories}: keep at least 2", "top_categories")

    @property
    def reading(self) -> ReadingOptions:
        """What the user says about the ratings."""
        text = TextOptions(self.separator, self.decimal, self.encoding, self.has_header)
        return ReadingOptions(
            self.columns or {}, text, self.scale, self.unrated, self.ids, self.implicit
        )

    @property
    def catalogue_options(self) -> CatalogueOptions | None:
        """What the user says about a table of items of their own, if there is one."""
        if self.catalogue is None or self.item is None or self.category is None:
            return None
        return CatalogueOptions(
            self.catalogue,
            self.item,
            self.category,
            self.category_separator,
            self.top_categories,
            self.category_weight,
        )

    @property
    def has_own_files(self) -> bool:
        """Whether both ratings and items are files of one's own, so that ``data`` has no part."""
        default = parse_synthetic_rows(self.data) is not None
        return bool(self.catalogue and self.ratings) and default

    @property
    def effective_source(self) -> str:
        """Where the data come from."""
        return str(self.ratings) if self.has_own_files else self.data

    @property
    def effective_join(self) -> Literal["links", "direct"]:
        """The join that is made: the one asked for, or the preset's."""
        if self.join == "direct" or (self.join is None and self.preset == "original"):
            return "direct"
        return "links"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the manifest records them."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {**values, "join": self.effective_join}

    def stage_key(self, stage: str) -> dict[str, Any]:
        """Return the settings that the result of a stage depends on."""
        fields = set(_STAGE_KEYS[stage])
        if "k" in fields and self.k != "auto":
            fields.discard("k_range")
        return {field: value for field, value in self.to_json().items() if field in fields}


@dataclass(frozen=True)
class ScoreSettings(Settings):
    """What ``score`` is asked for: how the new data are read, and the run whose model is used.

    Parameters
    ----------
    model
        The folder of the run.
    model_sha256
        The digest of its model, on which all results depend.
    """

    model: str = ""
    model_sha256: str = ""

    def stage_key(self, stage: str) -> dict[str, Any]:
        """Return the settings that the result of a stage depends on, the model among them."""
        return {**super().stage_key(stage), "model_sha256": self.model_sha256}


@dataclass(frozen=True)
class RefreshSettings(Settings):
    """What ``refresh`` is asked for: how the new data are read, and the run that they are added to.

    Parameters
    ----------
    from_run
        The folder of the run.
    from_sha256
        The digest of its manifest, on which all results depend.
    """

    from_run: str = ""
    from_sha256: str = ""

    def stage_key(self, stage: str) -> dict[str, Any]:
        """Return the settings that the result of a stage depends on, the run among them."""
        return {**super().stage_key(stage), "from_sha256": self.from_sha256}


def _is_text(value: str) -> bool:
    """Return whether a name can be written to a file: the system may have passed other bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(
            f"{{{field}}} {{value}}: choose from {', '.join(choices)}", field, value=value
        )


@dataclass(frozen=True)
class Execution:
    """How a job is run; no result depends on it.

    Parameters
    ----------
    cluster
        The name of a file in ``cluster_config/``, or a path to one.
    address
        The scheduler of a running cluster.
    resume, overwrite
        Continue an earlier run in the same folder, or start again.
    performance_report
        Where to write Dask's performance report.
    debug
        Let Dask's own log lines through.
    """

    cluster: str = "threads"
    address: str | None = None
    resume: bool = False
    overwrite: bool = False
    performance_report: str | None = None
    debug: bool = False


def parse_synthetic_rows(data: str) -> int | None:
    """Return the rows of ``synthetic`` or ``synthetic:ROWS``; None for any other source."""
    kind, colon, rows = data.partition(":")
    if kind != "synthetic":
        return None
    if not colon:
        return SYNTHETIC_ROWS
    if not re.fullmatch(r"[0-9]{1,3}([_,]?[0-9]{3})*|[0-9]{1,20}", rows):
        raise UsageError(
            "{data} {value}: give the number of ratings, as in synthetic:1000000",
            "data",
            value=data,
        )
    return validate_synthetic_rows(int(rows.replace("_", "").replace(",", "")), "data", data)


def validate_synthetic_rows(rows: int, field: str, value: object) -> int:
    """Return ``rows`` if a synthetic data set can have so many ratings.

    Parameters
    ----------
    field, value
        The setting that asks for them, for the message.

    Raises
    ------
    UsageError
        If it can't.
    """
    low, high = _SYNTHETIC_RANGE
    if not low <= rows <= high:
        raise UsageError(
            f"{{{field}}} {{value}}: choose from {low:,} to {high:,} ratings", field, value=value
        )
    return rows
