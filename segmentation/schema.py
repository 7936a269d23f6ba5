"""Names, dtypes and the small frozen types that pass between the rooms of the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

USER = "userId"
MOVIE = "movieId"
RATING = "rating"
TIMESTAMP = "timestamp"
#: The line of a row; a column that we add and no file has.
LINE = "line"

#: dtypes of a partition of ratings; the text of a file is typed once, where it is read.
RATING_DTYPES: dict[str, type[np.generic]] = {
    USER: np.int64,
    MOVIE: np.int64,
    RATING: np.float64,
}

#: The lowest and highest rating, stars. All layouts rate in half-stars or whole stars within it.
SCALE = (0.5, 5.0)

#: A genre is one of a segment's high-rated genres from this mean on, on the scale :data:`SCALE`; on
#: another, from the same position.
HIGH_RATED = 3.0

#: Stability below which a segment should not be trusted, and from which on it is stable (Hennig
#: 2007).
WEAK, SOUND = 0.6, 0.75

#: Largest number of segments that can be requested.
MOST_SEGMENTS = 50

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
        *("movies", "items", "mean_rating", "is_outlier", "reason"),
    )
)


@dataclass(frozen=True)
class Catalogue:
    """Movies and their genres, keyed by the id that ratings carry.

    Parameters
    ----------
    movie_ids
        Sorted ids, int64 or byte strings of UTF-8, of shape (n_movies,).
    genres
        Genre names, in the order of every genre axis and column of this run.
    offsets, codes
        The sparse movie × genre indicator as compressed rows: movie ``i`` has the genres
        ``codes[offsets[i]:offsets[i + 1]]``. int32 of shape (n_movies + 1,) and (n_pairs,).
    titles
        One title per movie, in the order of ``movie_ids``.
    notes
        Counts of what was repaired or left out, by name, for the manifest.
    """

    movie_ids: NDArray[Any]
    genres: tuple[str, ...]
    offsets: NDArray[np.int32]
    codes: NDArray[np.int32]
    titles: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.movie_ids) + 1 or self.offsets[-1] != len(self.codes):
            raise ValueError(
                f"{len(self.movie_ids)} movies need {len(self.movie_ids) + 1} offsets that end at "
                f"{len(self.codes)}; got {len(self.offsets)}"
            )

    @property
    def has_text_ids(self) -> bool:
        """Whether ids are strings rather than integers."""
        return self.movie_ids.dtype.kind == "S"

    def table(self) -> MovieTable:
        """Return the part that travels to the workers, without titles."""
        return MovieTable(self.movie_ids, self.offsets, self.codes, len(self.genres))

    def title_of(self, movie_id: int) -> str | None:
        """Return the title of one movie, or None where the catalogue lacks it."""
        row = int(np.searchsorted(self.movie_ids, movie_id))
        if row == len(self.movie_ids) or self.movie_ids[row] != movie_id:
            return None
        return self.titles[row]


class MovieTable(NamedTuple):
    """The part of a :class:`Catalogue` that travels to the workers; fields as there."""

    movie_ids: NDArray[Any]
    offsets: NDArray[np.int32]
    codes: NDArray[np.int32]
    n_genres: int


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
    """Mergeable sums and counts, one row per user; a genre's mean is ``sums / counts``.

    They are accumulated as float64 and int64 or int32, and stored in the smallest dtypes that hold
    the same numbers (:func:`segmentation.features.user_statistics.downcast`): divide with an
    explicit dtype.

    Attributes
    ----------
    users
        Sorted distinct user ids, int64 or byte strings of UTF-8, of shape (n_users,).
    movies
        Number of used ratings, int64 or int32 of shape (n_users,).
    rating_sum
        Sum of the used ratings, float64 or float32 of shape (n_users,).
    sums, counts
        float64 or float32, and int32 or uint16, of shape (n_users, n_genres).
    """

    users: NDArray[Any]
    movies: NDArray[np.integer[Any]]
    rating_sum: NDArray[np.floating[Any]]
    sums: NDArray[np.floating[Any]]
    counts: NDArray[np.integer[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of memory of all arrays."""
        return sum(array.nbytes for array in self)


class Axes(NamedTuple):
    """Orthonormal axes for the picture, of shape (n_axes, n_genres), and the mean of the data."""

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]


@dataclass(frozen=True)
class SegmentProfile:
    """The figures of one segment.

    Parameters
    ----------
    segment
        Its number; segments are numbered by rising movies per user.
    users, share
        Its users, and their share of all users.
    movies_per_user, mean_rating
        Means over its users.
    mean
        Mean rating per genre, where an unseen genre counts as 0; of shape (n_genres,).
    mean_rated
        The same over the users who rated the genre; NaN where none did.
    coverage
        Share of its users who rated the genre.
    lift
        The genre's share of the segment's genre ratings over its share of everybody's; NaN where
        nobody rated it.
    distance_p99
        99th percentile of the distances of its users to the centre.
    scale
        The lowest and the highest rating.
    stability
        Mean Jaccard similarity to the nearest segment of fits on resampled users; NaN where it was
        not measured.
    """

    segment: int
    users: int
    share: float
    movies_per_user: float
    mean_rating: float
    mean: NDArray[np.float64]
    mean_rated: NDArray[np.float64]
    coverage: NDArray[np.float64]
    lift: NDArray[np.float64]
    distance_p99: float = float("nan")
    stability: float = float("nan")
    scale: tuple[float, float] = SCALE

    @property
    def high_rating(self) -> float:
        """The mean from which on a genre is high-rated.

        Examples
        --------
        >>> import dataclasses, numpy as np
        >>> empty = SegmentProfile(0, 1, 1.0, 1.0, 7.0, *[np.zeros(0)] * 4)
        >>> empty.high_rating, dataclasses.replace(empty, scale=(1, 10)).high_rating
        (3.0, 6.0)
        """
        (low, high), (first, last) = self.scale, SCALE
        return round(low + (high - low) * (HIGH_RATED - first) / (last - first), 2)

    @property
    def unit(self) -> str:
        """What ratings count."""
        return "stars" if self.scale[1] <= SCALE[1] else "points"

    @property
    def is_weak(self) -> bool:
        """Whether the segment is rarely found again when other users are sampled."""
        return self.stability < WEAK

    @property
    def satisfaction(self) -> float:
        """Mean of ``mean`` over all genres, stars."""
        return float(self.mean.mean())

    def high_rated(self, genres: tuple[str, ...]) -> list[str]:
        """Return the genres with a mean of at least :attr:`high_rating`, best first."""
        order = np.argsort(-self.mean, kind="stable")
        return [genres[g] for g in order if self.mean[g] >= self.high_rating]


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
