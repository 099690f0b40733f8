"""python guard.py OWNER COMMAND...: run a command for as long as the process OWNER lives, or the command.

A server may hold a GPU for ever whose worker was killed, and nothing else would end it. Ray kills this guard as well,
a child of its actor, but not what that has started: so the system ends the command with its guard, where it can.
"""

import ctypes
import signal
import subprocess
import sys

import psutil

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(owner, command):
    owner, child = psutil.Process(owner), psutil.Popen(command, preexec_fn=_end_with_parent())
    while True:
        try:
            return child.wait(timeout=1)
        except psutil.TimeoutExpired:
            if not owner.is_running() or owner.status() == psutil.STATUS_ZOMBIE:
                child.kill()
        except psutil.NoSuchProcess:
            return 1


def _end_with_parent():
    """What a process does before it becomes the command; nothing where the system is not Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: there must be no import after the fork
    return lambda: prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
    except (KeyboardInterrupt, psutil.NoSuchProcess, subprocess.SubprocessError):
        sys.exit(1)
