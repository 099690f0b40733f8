"""How steady an edit is: how much it changes from frame to frame beyond what its source does."""

from .pair import LEVELS, Pair, mean_of


class Steady:
    """Of neighbouring frames, in levels of 255."""

    def __init__(self):
        self._last = None
        self.frames = {"flicker_edit": [], "flicker_source": []}  # of a frame against the one before it

    def add(self, pair: Pair):
        last, self._last = self._last, pair
        for values, name in zip(self.frames.values(), ("after", "before"), strict=True):
            values.append(last and LEVELS * float((getattr(pair, name) - getattr(last, name)).abs_().mean()))

    def numbers(self) -> dict:
        """All None of a single frame. `worst_pair` are numbers of frames, counted from 1."""
        edit, source = self.frames.values()
        excess = [None if a is None else a - b for a, b in zip(edit, source, strict=True)]
        worst = max((i for i, each in enumerate(excess) if each is not None), key=excess.__getitem__, default=None)
        return {
            "flicker_edit": mean_of(edit),
            "flicker_source": mean_of(source),
            "excess": mean_of(excess),
            "worst_pair": None if worst is None else [worst, worst + 1],
            "worst_excess": None if worst is None else excess[worst],
        }
