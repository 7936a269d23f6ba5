"""Run the main job, and pause it at a stage.

``python -m tests.cluster.paused_job STAGE FOLDER`` takes the job's options after these two. At the
stage the job creates the file ``reached`` in the folder, and waits for the file ``continue``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobs import segment
from tests.cluster.faults import at_stage
from tests.cluster.processes import wait_until


def main(stage: str, folder: str, *arguments: str) -> int:
    def pause() -> None:
        (Path(folder) / "reached").touch()
        wait_until((Path(folder) / "continue").exists, 60)

    with at_stage(stage, pause):
        return segment.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
