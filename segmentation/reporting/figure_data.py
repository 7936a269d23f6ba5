"""The figures of a run as one request: what they need, and how they are drawn from it.

As bytes the request can go to another process, and the figures come back.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

    from segmentation.schema import SegmentProfile


@dataclass(frozen=True)
class FigureData:
    """What the figures show.

    Parameters
    ----------
    points, labels
        Some of the users on the two axes, (n_shown, 2), and their segments, (n_shown,).
    users
        How many users there are in all.
    names, genres
        Personas by segment, and genres in the order of the profiles' arrays.
    explained
        Share of the variance on each axis.
    profiles
        One a segment.
    seed
        Decides which of the points are drawn.
    """

    points: NDArray[Any]
    labels: NDArray[Any]
    users: int
    names: tuple[str, ...]
    genres: tuple[str, ...]
    explained: tuple[float, ...]
    profiles: tuple[SegmentProfile, ...]
    seed: int

    def to_bytes(self) -> bytes:
        """Return it as an ``.npz`` of plain arrays."""
        import numpy as np

        fields = [asdict(profile) for profile in self.profiles]
        columns = {f"profile:{name}": np.array([row[name] for row in fields]) for name in fields[0]}
        plain = {
            name: np.array(getattr(self, name))
            for name in ("points", "labels", "users", "names", "genres", "explained", "seed")
        }
        return _packed({**plain, **columns})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read it back; nothing in it can be run."""
        from segmentation.schema import SegmentProfile

        found = _unpacked(content)
        columns = {
            name.removeprefix("profile:"): array
            for name, array in found.items()
            if name.startswith("profile:")
        }
        profiles = tuple(
            SegmentProfile(
                **{
                    name: array[s] if array.ndim > 1 else array[s].item()
                    for name, array in columns.items()
                }
            )
            for s in range(len(columns["segment"]))
        )
        return cls(
            found["points"],
            found["labels"],
            int(found["users"]),
            tuple(found["names"].tolist()),
            tuple(found["genres"].tolist()),
            tuple(found["explained"].tolist()),
            profiles,
            int(found["seed"]),
        )

    def draw(self) -> dict[str, bytes]:
        """Draw the figures; PNGs by name."""
        from segmentation.reporting import figures

        return {
            "pca": figures.pca_scatter(
                self.points, self.labels, self.users, self.names, self.explained, self.seed
            ),
            "genres": figures.genre_heatmap(self.profiles, self.genres, self.names),
            "sizes": figures.segment_sizes(self.profiles, self.names),
        }


def packed_figures(drawn: Mapping[str, bytes]) -> bytes:
    """Return figures by name as the bytes of plain arrays."""
    import numpy as np

    return _packed({name: np.frombuffer(png, np.uint8) for name, png in drawn.items()})


def unpacked_figures(content: bytes) -> dict[str, bytes]:
    """Return the figures by name from the bytes of :func:`packed_figures`."""
    return {name: array.tobytes() for name, array in _unpacked(content).items()}


def _packed(arrays: Mapping[str, Any]) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _unpacked(content: bytes) -> dict[str, NDArray[Any]]:
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
