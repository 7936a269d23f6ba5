"""The saved model: all that is needed to place a user, in JSON that can't execute anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import DataError, UsageError
from segmentation.features.population import make_grid
from segmentation.schema import Axes, Population, Words
from segmentation.storage.atomic import write_json
from segmentation.storage.integrity import add_checksum, read_json, verify_checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from segmentation.schema import Grid

_FORMAT = 4
_FILE = "model.json"


@dataclass(frozen=True)
class SavedModel:
    """The centres and axes of a finished run, and the audience that they were fitted to.

    Parameters
    ----------
    preset, join, layout, categories
        What the feature matrix was made from; its columns follow ``categories``.
    scale, ratings
        The lowest and the highest rating, and what ratings are: ``ratings``, ``counts`` or
        ``rows``, each of which counts one.
    min_ratings
        The number of ratings from which on users shaped the segments.
    words
        What texts call items, categories and ratings.
    personas
        The name of each segment.
    centers
        float64 of shape (n_segments, n_categories).
    distance_p99
        99th percentile of the distances of each segment's users to its centre, of shape
        (n_segments,).
    axes
        The two axes of the picture.
    population
        What was counted of the users that shaped the segments.
    synthetic
        Whether the users were generated.
    """

    preset: str
    join: str
    layout: str
    categories: tuple[str, ...]
    scale: tuple[float, float]
    ratings: str
    min_ratings: int
    words: Words
    personas: tuple[str, ...]
    centers: NDArray[np.float64]
    distance_p99: NDArray[np.float64]
    axes: Axes
    population: Population
    synthetic: bool

    @property
    def grid(self) -> Grid:
        """The cells that the features of the population were counted in."""
        return make_grid(self.preset, self.scale)

    def to_sklearn(self) -> Pipeline:
        """Return a fitted scikit-learn pipeline that predicts the segments.

        Its input is the mean per category, in the order of ``categories``, NaN for none: the
        columns of ``assignments.parquet``.

        Raises
        ------
        UsageError
            If the preset is ``taste``, which needs more than means.
        """
        import pandas as pd
        from sklearn.cluster import KMeans
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import FunctionTransformer

        self.check_means()
        k, centers = len(self.centers), self.centers
        imputer = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
        frame = pd.DataFrame(centers, columns=list(self.categories))
        # Fitted to the centres themselves, each of which is a cluster; rounding is undone.
        kmeans = KMeans(k, init=centers, n_init=1, max_iter=1).fit(imputer.fit_transform(frame))
        kmeans.cluster_centers_ = np.ascontiguousarray(centers)
        # Assignments have float32, and KMeans takes no other type than that of its centres.
        to_float64 = FunctionTransformer(np.asarray, kw_args={"dtype": np.float64})
        return Pipeline([("impute", imputer), ("float64", to_float64), ("segments", kmeans)])

    def check_means(self) -> None:
        """Check that means per category are all that the model needs.

        Raises
        ------
        UsageError
            If the preset is ``taste``.
        """
        if self.preset == "taste":
            raise UsageError(
                "{model}: the preset taste needs the number of ratings per category as well as "
                "their mean: use score, or fit the preset engagement",
                "model",
            )

    def save(self, folder: Path) -> None:
        """Write the model into ``folder``."""
        segments = zip(self.personas, self.centers, self.distance_p99, strict=True)
        values: dict[str, Any] = {
            "format": _FORMAT,
            "preset": self.preset,
            "join": self.join,
            "layout": self.layout,
            "synthetic": self.synthetic,
            "categories": list(self.categories),
            "scale": list(self.scale),
            "ratings": self.ratings,
            "min_ratings": self.min_ratings,
            "words": asdict(self.words),
            "segments": [
                {"segment": s, "persona": name, "center": center, "distance_p99": distance}
                for s, (name, center, distance) in enumerate(segments)
            ],
            "pca": self.axes._asdict(),
            "population": self.population._asdict(),
        }
        write_json(folder / _FILE, add_checksum(values))


def load_model(run: str | Path) -> SavedModel:
    """Read the model that a run saved.

    Parameters
    ----------
    run
        The folder of the run, its folder ``model``, or the file ``model.json``.

    Raises
    ------
    DataError
        If there is none, or it can't be read.
    """
    folder = Path(run)
    candidates = [folder / "model" / _FILE, folder / _FILE, folder]
    path = next((path for path in candidates if path.is_file()), folder / _FILE)
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise DataError(f"{folder}: has no {_FILE}: name the folder of a run") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}): run segment again") from error
    try:
        if values["format"] != _FORMAT:
            raise DataError(
                f"{path}: has format {values['format']}, and this program reads format {_FORMAT}: "
                "run segment again"
            )
        if not verify_checksum(values):
            raise ValueError("it differs from what was written")
        segments, pca = values["segments"], values["pca"]
        low, high = values["scale"]
        return SavedModel(
            preset=values["preset"],
            join=values["join"],
            layout=values["layout"],
            categories=tuple(values["categories"]),
            scale=(float(low), float(high)),
            ratings=values["ratings"],
            min_ratings=int(values["min_ratings"]),
            words=Words(**values["words"]),
            personas=tuple(segment["persona"] for segment in segments),
            centers=np.array([segment["center"] for segment in segments], np.float64),
            distance_p99=np.array([segment["distance_p99"] for segment in segments], np.float64),
            axes=Axes(*(np.array(pca[name], np.float64) for name in Axes._fields)),
            population=_parse_population(values["population"]),
            synthetic=bool(values["synthetic"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error}): run segment again") from error


def _parse_population(values: Mapping[str, Any]) -> Population:
    return Population(
        users=np.array(values["users"], np.int64),
        outliers=np.array(values["outliers"], np.int64),
        squares=np.array(values["squares"], np.float64),
        sums=np.array(values["sums"], np.float64),
        cells=np.array(values["cells"], np.int64),
    )
