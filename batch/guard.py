"""python guard.py OWNER COMMAND...: run a command for as long as the process OWNER lives, or the command.

A server may hold a GPU for ever whose worker was killed, and nothing else would end it.
"""

import subprocess
import sys

import psutil


def main(owner, command):
    owner, child = psutil.Process(owner), psutil.Popen(command)
    while True:
        try:
            return child.wait(timeout=1)
        except psutil.TimeoutExpired:
            if not owner.is_running() or owner.status() == psutil.STATUS_ZOMBIE:
                child.kill()
        except psutil.NoSuchProcess:
            return 1


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
    except (KeyboardInterrupt, psutil.NoSuchProcess, subprocess.SubprocessError):
        sys.exit(1)
