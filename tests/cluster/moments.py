"""Runs the main job, and lets it wait at a stage.

``python -m tests.cluster.moments STAGE FOLDER`` takes the job's options behind these two. The file
``there`` appears in the folder at the stage; the job goes on as soon as ``on`` does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobs import segment
from tests.cluster.faults import at
from tests.cluster.processes import until


def main(stage: str, folder: str, *arguments: str) -> int:
    def happen() -> None:
        (Path(folder) / "there").touch()
        until((Path(folder) / "on").exists, 60)

    with at(stage, happen):
        return segment.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
