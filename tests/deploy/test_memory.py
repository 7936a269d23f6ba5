"""Peak memory: of this process and its children together."""

from __future__ import annotations

import os
import subprocess
import sys

from segmentation.deploy.memory import peak_rss

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

_FREED = """
import numpy as np
from segmentation.deploy.memory import PeakMemory
with PeakMemory() as memory:
    before = memory.bytes
    size = np.ones(30_000_000).nbytes
    assert memory.bytes > before + size / 2, (before, memory.bytes)
"""


# In new processes: the peak of this one includes everything that ran before.
def test_children_count() -> None:
    subprocess.run([sys.executable, "-c", _CHILDREN], check=True)


def test_a_peak_is_kept_after_the_memory_is_freed() -> None:
    subprocess.run([sys.executable, "-c", _FREED], check=True)


def test_the_peak_of_one_process() -> None:
    code = "x = bytearray(b'x') * 100_000_000; input()"
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True);" + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdin.write(b"\n")
        child.stdin.flush()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert peak_rss(child.pid) == 0
    assert peak_rss() > 10e6
