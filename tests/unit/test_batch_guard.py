"""A server's guard, which may be killed itself."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from liveditor import batch


def test_a_killed_guard_takes_its_command_with_it():
    guard = Path(batch.__file__).with_name("guard.py")
    command = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]
    process = psutil.Popen([sys.executable, guard, str(os.getpid()), *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    (child,) = process.children()
    process.kill()
    assert psutil.wait_procs([child], timeout=10)[1] == []
