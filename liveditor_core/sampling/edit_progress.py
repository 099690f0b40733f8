"""How far an edit is: the host's progress bar, a preview of the frames at work, and the time that is left."""

import time

from ..progress import SAY_EVERY, duration


class EditProgress:
    """Counts calls of the model, one for each step and window.

    Args:
        model: the host's MODEL.
        steps, windows: of the edit.
        done: calls that an earlier run did.
        say: gets a line for the node at work.
        double: steps that take twice as long as those after them.
    """

    def __init__(self, model, steps: int, windows: int, done: int, say, double: int = 0):
        self._windows, self._total, self._done, self._say = windows, steps * windows, done, say
        self._double = double * windows
        self._show = _host_s(model, self._total)
        self._first = self._said = None  # when the first call ended, which loads and compiles; and what was said last
        self._begun = done

    def step_done(self, step, x0, x, _total):
        """The host's callback of a step, where a step is one call."""
        self.window_done(step, x0, x)

    def window_done(self, _number, x0, x):
        """Args: prediction and latent of the frames that were computed."""
        now = time.monotonic()
        self._done += 1
        if self._show is not None:
            self._show(self._done - 1, x0, x, self._total)
        if self._first is None:
            self._first = now
        elif self._done < self._total and (self._said is None or now - self._said >= SAY_EVERY):
            pace = (now - self._first) / (self._work(self._done) - self._work(self._begun + 1))
            self._say(self._line(pace * (self._work(self._total) - self._work(self._done))))
            self._said = now

    def _work(self, calls):
        return calls + min(calls, self._double)

    def _line(self, seconds):
        step, window = divmod(self._done, self._windows)
        where = f"step {step + 1} of {self._total // self._windows}"
        if self._windows > 1:
            where += f", window {window + 1} of {self._windows}"
        return f"{where}, about {duration(seconds)} left"


def _host_s(model, calls):
    """The host's progress and previews; None in a version that has them elsewhere, where the edit is the same."""
    try:
        from latent_preview import prepare_callback
    except ImportError:
        return None
    return prepare_callback(model, calls)
