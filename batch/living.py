"""Which process a file names, and whether it still lives: numbers of processes are given out again."""

import sys
from pathlib import Path

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")  # of Linux: another one since each start of the machine


def named(process: psutil.Process) -> dict:
    """What tells a process from all others of its machine, to be written down."""
    return {"pid": process.pid, "began": _began(process)}


def find(name: dict) -> psutil.Process | None:
    """The process that `named` told of, None if it has ended.

    Raises:
        KeyError, TypeError: it is no such name.
    """
    pid, began, created = name["pid"], name.get("began"), name.get("created")
    try:
        process = psutil.Process(pid)
        if began is None:  # of an earlier version
            return process if abs(process.create_time() - created) < 2 else None
        return process if _began(process) == began else None
    except psutil.Error:
        return None


def _began(process):
    """When it began, by a clock that nobody sets: Linux tells others the time by one that is."""
    if sys.platform != "linux":
        return process.create_time()
    try:
        # After the program's name, which may hold anything: field 22, in ticks since the machine was started.
        ticks = Path(f"/proc/{process.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
    try:
        boot = BOOT.read_text().strip()
    except OSError:  # some containers do not have it
        boot = ""
    return f"{ticks} {boot}"
