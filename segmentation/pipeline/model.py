"""The saved model: all that is needed to place a user, in JSON that can't execute anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import DataError
from segmentation.schema import Axes
from segmentation.storage.atomic import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_FORMAT = 1
_FILE = "model.json"


@dataclass(frozen=True)
class SavedModel:
    """Centres and axes of a finished run.

    ``centers`` has shape (n_segments, n_genres), float64; ``distance_p99`` is the 99th percentile
    of the distances of each segment's users to its centre.
    """

    preset: str
    join: str
    layout: str
    genres: tuple[str, ...]
    personas: tuple[str, ...]
    centers: NDArray[np.float64]
    distance_p99: NDArray[np.float64]
    axes: Axes
    synthetic: bool

    def save(self, folder: Path) -> None:
        """Write the model into ``folder``."""
        values: dict[str, Any] = {
            "format": _FORMAT,
            "preset": self.preset,
            "join": self.join,
            "layout": self.layout,
            "synthetic": self.synthetic,
            "genres": list(self.genres),
            "segments": [
                {"segment": s, "persona": name, "center": center, "distance_p99": far}
                for s, (name, center, far) in enumerate(
                    zip(self.personas, self.centers, self.distance_p99, strict=True)
                )
            ],
            "pca": self.axes._asdict(),
        }
        write_json(folder / _FILE, values)


def load_model(folder: Path) -> SavedModel:
    """Read a model back.

    Raises
    ------
    DataError
        If there is none, or it can't be read.
    """
    path = folder / _FILE
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no {_FILE}: name the model folder of a run") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}): run segment again") from error
    try:
        if values["format"] != _FORMAT:
            raise DataError(
                f"{path}: is of format {values['format']} and this program reads {_FORMAT}: "
                "run segment again"
            )
        segments = values["segments"]
        pca = values["pca"]
        return SavedModel(
            values["preset"],
            values["join"],
            values["layout"],
            tuple(values["genres"]),
            tuple(segment["persona"] for segment in segments),
            np.array([segment["center"] for segment in segments], np.float64),
            np.array([segment["distance_p99"] for segment in segments], np.float64),
            Axes(*(np.array(pca[name], np.float64) for name in Axes._fields)),
            bool(values["synthetic"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error}): run segment again") from error
