"""Peak memory: of this process and its children together."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from segmentation.run.memory import PeakMemory


def test_children_count() -> None:
    with PeakMemory() as memory:
        before = memory.bytes
        code = "import time; x = bytearray(b'x') * 150_000_000; print(flush=True); time.sleep(1)"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.3)
        assert memory.bytes > before + 100e6


def test_own_peak_is_kept_after_the_memory_is_gone() -> None:
    with PeakMemory() as memory:
        block = np.ones(30_000_000)
        size = block.nbytes
        del block
        assert memory.bytes > size
