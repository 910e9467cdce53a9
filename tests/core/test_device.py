"""What a job leaves behind in its process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

THREAD = """
import re, threading
from pathlib import Path
import torch
from raygrid.core.device import release

def megabytes():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def work():
    global kept
    blocks = [b"x" * 100_000 for _ in range(1000)]
    kept = blocks[-1]  # the last one, before which glibc keeps what is free

before = megabytes()
thread = threading.Thread(target=work)
thread.start()
thread.join()
after = megabytes()
release(torch.device("cpu"))
print(after - before, megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_a_thread_has_freed_goes_back() -> None:
    said = subprocess.run([sys.executable, "-c", THREAD], capture_output=True, text=True)
    kept, left = map(float, said.stdout.split())
    assert kept > 80
    assert left < 20
