"""The source computed in every other step: its part of the attention is kept for the step that follows.

What the model knows of the source changes little from one noise level to the next, and a call without it has half the
tokens. Kept are, for every prompt and block, what `KeptSource` holds. Which steps compute the source is decided by
their number alone, so that an edit that goes on after a crash gives the same.
"""

from typing import NamedTuple

from ..attention.kept_source import KeptSource
from ..attention.observers import RECORD_KEY
from ..attention.token_layout import TokenLayout
from .kept_in_ram import KeptInRam

REUSE_KEY = "liveditor_source_reuse"  # in transformer_options: the SourceReuse of a run
EVERY = 2  # steps, of which the first computes the source


class SourceReuse:
    """What one run keeps. Calls on several GPUs, from several threads, may interleave."""

    def __init__(self, in_ram=False):
        self._in_ram = in_ram
        self._kept = {}  # by prompt, layout, rank and device: the step, and a KeptSource of every block
        self.without = 0  # calls of the model that computed no source

    def call(self, step, keys, blocks) -> "OfCall | None":
        """What a call in a step keeps or has; None for a call that does neither."""
        if step % EVERY == 0:
            for key in keys:
                _, before = self._kept.pop(key, (None, None))
                if not self._in_ram:
                    before = {}  # what was there is free before the call
                elif before is None:
                    before = KeptInRam(key[-1])
                else:
                    before.restart()
                self._kept[key] = step, before
            return OfCall([self._kept[key][1] for key in keys], has_source=False)
        found = [self._kept.get(key, (None, {})) for key in keys]
        if any(when != step - 1 or len(kept) != blocks for when, kept in found):
            return None
        self.without += any(rank == 0 for _, _, rank, _ in keys)
        return OfCall([kept for _, kept in found], has_source=True)

    @property
    def prompts(self):
        """How many sources are kept."""
        return sum(rank == 0 for _, _, rank, _ in self._kept)

    def clear(self):
        """The run is over."""
        for _, kept in self._kept.values():
            kept.clear()
        self._kept.clear()

    def describe(self, calls):
        """For the report of a run of so many calls of the model."""
        if self.without:
            where = "in RAM" if self._in_ram else "on the GPU"
            return f"source: not computed in {self.without} of {calls} model calls, kept {where} from the step before"
        return (
            "source: computed in every step after all: another node patches or records the model, or there is one step"
        )


class OfCall(NamedTuple):
    """Of one call of the model."""

    kept: list  # for every prompt, by block
    has_source: bool

    def of_block(self, block):
        if not self.has_source:
            return OfBlock(None, lambda source: self._keep(block, source))
        prompts = [kept[block] for kept in self.kept]
        return OfBlock(prompts[0] if len(prompts) == 1 else KeptSource.together(prompts), None)

    def _keep(self, block, source):
        for kept, own in zip(self.kept, source.apart(len(self.kept)), strict=True):
            kept[block] = own


class OfBlock(NamedTuple):
    """Of one block: the source of the step before, or else what takes that of this one."""

    source: KeptSource | None
    keep: object


def reuse_of_call(transformer_options, layout: TokenLayout, x, blocks, rank=0):
    """What a call of a model with so many blocks keeps or has; None where nothing is reused.

    Args:
        x: [B, target tokens, C], B prompts or a multiple of them.
        rank: of this GPU among those that compute the call together.
    """
    reuse = transformer_options.get(REUSE_KEY)
    prompts, step = transformer_options.get("uuids"), _number_of_step(transformer_options)
    if reuse is None or RECORD_KEY in transformer_options or step is None or not prompts or x.shape[0] % len(prompts):
        return None
    return reuse.call(step, [(prompt, layout, rank, x.device) for prompt in prompts], blocks)


def _number_of_step(transformer_options):
    """From 0; None for a noise level between those of the steps, and for a last step that nothing would follow."""
    sigmas, current = transformer_options.get("sample_sigmas"), transformer_options.get("sigmas")
    if sigmas is None or current is None:
        return None
    found = (sigmas[:-1] == current[0].to(sigmas)).nonzero().flatten().tolist()
    return found[0] if found and (found[0] % EVERY or found[0] + 2 < len(sigmas)) else None
