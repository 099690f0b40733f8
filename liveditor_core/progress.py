"""Progress on the node that is at work, and stopping when the user says so."""

import time

import comfy.model_management
import comfy.utils

SAY_EVERY = 1.0  # seconds: the canvas draws no faster


def check(_time=None):
    """Raise the host's own exception if the run was interrupted."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def watch():
    """A function that shows how many of so many frames are done."""
    bar = comfy.utils.ProgressBar(1)

    def tick(done, total):
        check()
        bar.update_absolute(min(done, total), total)

    return tick


class BytesProgress:
    """The host's bar, and a line with bytes and the time left, of a job on files in several parts.

    Args:
        say: gets the line for the node at work.
    """

    def __init__(self, say):
        self._say = say
        self._what = None

    def __call__(self, what, done, total):
        check()
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun, self._from, self._said = what, now, done, now
            self._bar = comfy.utils.ProgressBar(total)
        if now - self._said < SAY_EVERY and done < total:
            return
        self._said = now
        self._bar.update_absolute(done, total)
        line = f"{what}: {done / 1e9:.1f} of {total / 1e9:.1f} GB"
        if self._from < done < total:
            line += f", about {duration((now - self._begun) / (done - self._from) * (total - done))} left"
        self._say(line)


def duration(seconds: float) -> str:
    """In words, as precise as a forecast is."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
