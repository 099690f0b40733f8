"""How much memory another process takes over a while."""

import threading
import time

import psutil

EVERY = 0.02  # seconds


class MemoryOf:
    """Samples a process's resident memory in the background. Use as a context manager.

    Args:
        limit: bytes above the base at which the process is killed, so that a fault does not take the machine along.

    Attributes:
        samples: (seconds since the start, bytes above the base).
        exceeded: whether the limit was reached.
    """

    def __init__(self, pid, limit=None):
        self._process, self._limit, self._stop = psutil.Process(pid), limit, threading.Event()
        self.samples, self.exceeded = [], False

    def __enter__(self):
        self._base, self._started = self._process.memory_info().rss, time.monotonic()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _sample(self):
        while not self._stop.wait(EVERY):
            try:
                above = self._process.memory_info().rss - self._base
            except psutil.NoSuchProcess:
                return
            self.samples.append((time.monotonic() - self._started, above))
            if self._limit is not None and above > self._limit:
                self.exceeded = True
                self._process.kill()
                return

    @property
    def growth(self):
        """Bytes of the peak above the base."""
        return max((above for _, above in self.samples), default=0)
