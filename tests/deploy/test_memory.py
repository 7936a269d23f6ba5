"""Peak memory: of this process and its children together."""

from __future__ import annotations

import subprocess
import sys

_CHILDREN = """
import subprocess, sys, time
from segmentation.deploy.memory import PeakMemory
with PeakMemory() as memory:
    before = memory.bytes
    code = "import time; x = bytearray(b'x') * 150_000_000; print(flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        time.sleep(0.4)
    assert memory.bytes > before + 100e6, (before, memory.bytes)
"""

_GONE = """
import numpy as np
from segmentation.deploy.memory import PeakMemory
with PeakMemory() as memory:
    before = memory.bytes
    size = np.ones(30_000_000).nbytes
    assert memory.bytes > before + size / 2, (before, memory.bytes)
"""


# In processes of their own: what this one peaked at before is part of its history.
def test_children_count() -> None:
    subprocess.run([sys.executable, "-c", _CHILDREN], check=True)


def test_own_peak_is_kept_after_the_memory_is_gone() -> None:
    subprocess.run([sys.executable, "-c", _GONE], check=True)
