"""Names, dtypes and the small frozen types that pass between the rooms of the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

USER = "userId"
ITEM = "movieId"
RATING = "rating"
TIMESTAMP = "timestamp"
#: The line of a row; a column that we add and no file has.
LINE = "line"

#: dtypes of a partition of ratings; the text of a file is typed once, where it is read.
RATING_DTYPES: dict[str, type[np.generic]] = {
    USER: np.int64,
    ITEM: np.int64,
    RATING: np.float64,
}

#: The lowest and highest rating, stars. All layouts rate in half-stars or whole stars within it.
SCALE = (0.5, 5.0)

#: The lowest and the highest points that a count can have, and how they are made.
COUNT_SCALE = 1.0, 5.0
COUNTS_NOTE = "counts as points: 1 up to 1, one more per factor of ten, 5 at most"

#: A category is one of a segment's high-rated ones from this mean on, on the scale :data:`SCALE`;
#: on another, from the same position.
HIGH_RATED = 3.0

#: Stability below which a segment should not be trusted, and from which on it is stable (Hennig
#: 2007).
WEAK, SOUND = 0.6, 0.75

#: Largest number of segments that can be requested.
MOST_SEGMENTS = 50


@dataclass(frozen=True)
class Words:
    """What texts for people call the parts of a data set.

    Parameters
    ----------
    item, items, category, categories
        What is rated and the groups that it belongs to, one and several.
    ratings
        The rows of the log.
    unit
        What a rating counts; empty if each row counts one, so that means say how many users have a
        category.
    """

    item: str = "item"
    items: str = "items"
    category: str = "category"
    categories: str = "categories"
    ratings: str = "ratings"
    unit: str = "points"

    @property
    def has_ratings(self) -> bool:
        """Whether the rows have a rating."""
        return self.unit != ""


#: TMDB's genres as ``movies_metadata.csv`` has them, in alphabetical order.
KAGGLE_GENRES: tuple[str, ...] = (
    "Action",
    "Adventure",
    "Animation",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Family",
    "Fantasy",
    "Foreign",
    "History",
    "Horror",
    "Music",
    "Mystery",
    "Romance",
    "Science Fiction",
    "TV Movie",
    "Thriller",
    "War",
    "Western",
)

#: GroupLens' genres in the order of its README, then IMAX, which its files have as well.
GROUPLENS_GENRES: tuple[str, ...] = (
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
    "IMAX",
)


#: Columns of the outputs that stand next to one column per category.
RESERVED_COLUMNS = frozenset(
    (
        *(USER, "segment", "persona", "distance", "runner_up", "margin", "pc1", "pc2"),
        *("items", "mean_rating", "is_outlier", "reason"),
    )
)


@dataclass(frozen=True)
class Catalogue:
    """Items and their categories, keyed by the id that ratings carry.

    Parameters
    ----------
    item_ids
        Sorted ids, int64 or byte strings of UTF-8, of shape (n_items,).
    categories
        Category names, in the order of every category axis and column of this run.
    offsets, codes
        The sparse item × category indicator as compressed rows: item ``i`` has the categories
        ``codes[offsets[i]:offsets[i + 1]]``. int32 of shape (n_items + 1,) and (n_pairs,).
    titles
        One title per item, in the order of ``item_ids``.
    notes
        Counts of what was repaired or left out, by name, for the manifest.
    """

    item_ids: NDArray[Any]
    categories: tuple[str, ...]
    offsets: NDArray[np.int32]
    codes: NDArray[np.int32]
    titles: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.item_ids) + 1 or self.offsets[-1] != len(self.codes):
            raise ValueError(
                f"{len(self.item_ids)} items need {len(self.item_ids) + 1} offsets that end at "
                f"{len(self.codes)}; got {len(self.offsets)}"
            )

    @property
    def has_text_ids(self) -> bool:
        """Whether ids are strings rather than integers."""
        return self.item_ids.dtype.kind == "S"

    def table(self, *, keep_all_users: bool = False) -> ItemTable:
        """Return the part that travels to the workers, without titles."""
        n_categories = len(self.categories)
        return ItemTable(self.item_ids, self.offsets, self.codes, n_categories, keep_all_users)

    def title_of(self, item_id: int) -> str | None:
        """Return the title of one item, or None where the catalogue lacks it."""
        row = int(np.searchsorted(self.item_ids, item_id))
        if row == len(self.item_ids) or self.item_ids[row] != item_id:
            return None
        return self.titles[row]


class ItemTable(NamedTuple):
    """The part of a :class:`Catalogue` that travels to the workers; fields as there.

    With ``keep_all_users``, a user who only rated other items is counted as one with no rating.
    """

    item_ids: NDArray[Any]
    offsets: NDArray[np.int32]
    codes: NDArray[np.int32]
    n_categories: int
    keep_all_users: bool = False


class ByteRange(NamedTuple):
    """The lines of one ratings file that begin in ``[start, stop)``."""

    path: str
    start: int
    stop: int


class RejectedRow(NamedTuple):
    """An input row that is not a rating, with its place (1-based line) and the reason."""

    file: str
    line: int
    reason: str
    text: str


class UserStatistics(NamedTuple):
    """Mergeable sums and counts, one row per user; a category's mean is ``sums / counts``.

    They are accumulated as float64 and int64 or int32, and stored in the smallest dtypes that hold
    the same numbers (:func:`segmentation.features.user_statistics.downcast`): divide with an
    explicit dtype.

    Attributes
    ----------
    users
        Sorted distinct user ids, int64 or byte strings of UTF-8, of shape (n_users,).
    items
        Number of used ratings, int64 or int32 of shape (n_users,).
    rating_sum
        Sum of the used ratings, float64 or float32 of shape (n_users,).
    sums, counts
        float64 or float32, and int32 or uint16, of shape (n_users, n_categories).
    """

    users: NDArray[Any]
    items: NDArray[np.integer[Any]]
    rating_sum: NDArray[np.floating[Any]]
    sums: NDArray[np.floating[Any]]
    counts: NDArray[np.integer[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of memory of all arrays."""
        return sum(array.nbytes for array in self)


class Axes(NamedTuple):
    """Orthonormal axes for the picture, of shape (n_axes, n_categories), and the data's mean."""

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]


class Grid(NamedTuple):
    """Cells that features are counted in: one for 0, then 40 of equal width from low to high.

    Zero has a cell of its own, since that is what a user without the category has.
    """

    low: float
    high: float

    @property
    def n_cells(self) -> int:
        """The number of cells, that of 0 first."""
        return 41

    @property
    def width(self) -> float:
        """The width of a cell."""
        return (self.high - self.low) / (self.n_cells - 1)

    @property
    def midpoints(self) -> NDArray[np.float64]:
        """The middle of each cell, of shape (n_cells,)."""
        middles = self.low + self.width * (np.arange(self.n_cells - 1) + 0.5)
        return np.concatenate([[0.0], middles])


class Population(NamedTuple):
    """Counts and sums over the users of an audience that is in its segments.

    Attributes
    ----------
    users, outliers
        Number of users, and of those beyond the 99th percentile of the distances that the segment
        had when it was fitted; int64 of shape (n_segments,).
    squares
        Sum of the squared distances to the centre, float64 of shape (n_segments,).
    sums
        Sum of the features, float64 of shape (n_segments, n_features).
    cells
        Number of users per feature and cell, int64 of shape (n_features, n_cells).
    """

    users: NDArray[np.int64]
    outliers: NDArray[np.int64]
    squares: NDArray[np.float64]
    sums: NDArray[np.float64]
    cells: NDArray[np.int64]


class Moves(NamedTuple):
    """Users by the segment that they were in and the one that they are in.

    Attributes
    ----------
    flows
        Users of both runs, int64 of shape (n_before, n_now).
    entered, left
        Number of users of the later run only, and of the earlier run only.
    """

    flows: NDArray[np.int64]
    entered: int
    left: int


@dataclass(frozen=True)
class SegmentProfile:
    """The figures of one segment.

    Parameters
    ----------
    segment
        Its number; segments are numbered by rising items per user.
    users, share
        Its users, and their share of all users.
    items_per_user, median_items_per_user
        Mean and median of its users' numbers of ratings.
    mean_rating
        The mean over its users of their mean ratings.
    mean
        Mean rating per category, where an unseen category counts as 0; of shape (n_categories,).
    mean_rated
        The same over the users who rated the category; NaN where none did.
    coverage
        Share of its users who rated the category.
    lift
        The category's share of the segment's category ratings over its share of everybody's; NaN
        where nobody rated it.
    distance_p99
        99th percentile of the distances of its users to the centre.
    scale
        The lowest and the highest rating.
    words
        What texts call items, categories and ratings.
    stability
        Mean Jaccard similarity to the nearest segment of fits on resampled users; NaN where it was
        not measured.
    """

    segment: int
    users: int
    share: float
    items_per_user: float
    median_items_per_user: float
    mean_rating: float
    mean: NDArray[np.float64]
    mean_rated: NDArray[np.float64]
    coverage: NDArray[np.float64]
    lift: NDArray[np.float64]
    distance_p99: float = float("nan")
    stability: float = float("nan")
    scale: tuple[float, float] = SCALE
    words: Words = Words()

    @property
    def high_rating(self) -> float:
        """The mean from which on a category is high-rated.

        Examples
        --------
        >>> import dataclasses, numpy as np
        >>> empty = SegmentProfile(0, 1, 1.0, 1.0, 1.0, 7.0, *[np.zeros(0)] * 4)
        >>> empty.high_rating, dataclasses.replace(empty, scale=(1, 10)).high_rating
        (3.0, 6.0)
        """
        (low, high), (first, last) = self.scale, SCALE
        return round(low + (high - low) * (HIGH_RATED - first) / (last - first), 2)

    @property
    def rating_position(self) -> float:
        """The place of the mean rating on the scale, from 0 to 1."""
        low, high = self.scale
        return (self.mean_rating - low) / (high - low)

    @property
    def is_weak(self) -> bool:
        """Whether the segment is rarely found again when other users are sampled."""
        return self.stability < WEAK

    @property
    def satisfaction(self) -> float:
        """Mean of ``mean`` over all categories, stars."""
        return float(self.mean.mean())

    def high_rated(self, categories: tuple[str, ...]) -> list[str]:
        """Return the categories with a mean of at least :attr:`high_rating`, best first."""
        order = np.argsort(-self.mean, kind="stable")
        return [categories[g] for g in order if self.mean[g] >= self.high_rating]


@dataclass(frozen=True)
class Persona:
    """The name of a segment, its description, and what to do for it."""

    name: str
    tagline: str
    summary: str
    product_strategy: tuple[str, ...]
    marketing_actions: tuple[str, ...]


class KFigures(NamedTuple):
    """The scores of the clustering into ``k``; None where a score is undefined.

    ``silhouette`` is computed on a sample and stability on resamples, the rest on all rows.
    ``resampled_ari`` and ``reseeded_ari`` are mean adjusted Rand indices over other rows and other
    seeds, ``jaccard`` the Jaccard similarity of each cluster.
    """

    k: int
    inertia: float
    n_iter: int
    silhouette: float | None
    simplified_silhouette: float | None
    davies_bouldin: float | None
    calinski_harabasz: float | None
    resampled_ari: float | None
    reseeded_ari: float | None
    jaccard: tuple[float | None, ...]

    @property
    def weakest(self) -> float | None:
        """The stability of the least stable cluster; None if one of them has none."""
        known = [value for value in self.jaccard if value is not None]
        return min(known) if len(known) == self.k else None


class KSearch(NamedTuple):
    """The result of a search for the number of clusters.

    ``figures`` go by rising k and may include one k outside ``low`` … ``high`` for comparison;
    ``sound`` says whether every cluster of the ``recommended`` k is stable.
    """

    figures: tuple[KFigures, ...]
    low: int
    high: int
    recommended: int
    sound: bool
    silhouette_rows: int
    stability_rows: int

    def of(self, k: int) -> KFigures | None:
        """Return the figures of one k, None if it was not tried."""
        return next((figures for figures in self.figures if figures.k == k), None)

    @property
    def in_range(self) -> tuple[KFigures, ...]:
        """The figures that the recommendation was made from."""
        return tuple(row for row in self.figures if self.low <= row.k <= self.high)
