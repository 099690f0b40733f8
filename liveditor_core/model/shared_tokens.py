"""One call of the model on several GPUs: each has a part of the tokens, and in self-attention a part of the heads.

Everything but self-attention concerns each token alone, and within self-attention every head is alone; so before it
every GPU sends the others their heads of its tokens, and after it their tokens of its heads ("Ulysses",
arXiv 2309.14509). Every GPU has a part of the target and as large a part of the source, so that a call without the
source, and the last block, which only the target's tokens leave, are shared as evenly.
"""

import threading

import torch

from ..attention.token_layout import TokenLayout


class Meeting:
    """Where the threads of a call's GPUs give each other what they have."""

    def __init__(self, parties: int):
        self._barrier = threading.Barrier(parties)
        # Two in turn: nobody can be further ahead than that, so one wait for each exchange is enough.
        self._brought = [None] * parties, [None] * parties

    def swap(self, rank, turn, value):
        """Everybody's values, once all have brought theirs.

        Args:
            turn: number of the exchange.

        Raises:
            threading.BrokenBarrierError: another thread failed.
        """
        brought = self._brought[turn % 2]
        brought[rank] = value
        self._barrier.wait()
        return list(brought)

    def give_up(self):
        """Let nobody wait for a thread that failed."""
        self._barrier.abort()


class Seat:
    """Of one GPU in a call.

    Args:
        rank: its number among those of the call, from 0.
        parties: how many there are.
    """

    def __init__(self, rank: int, parties: int, meeting: Meeting):
        self.rank, self.parties, self.meeting = rank, parties, meeting

    def part(self, layout: TokenLayout, num_heads: int) -> "Part":
        return Part(self, layout, num_heads)


class Part:
    """Tokens and heads of one GPU in one call.

    Copies run on streams of their own, beside what is computed meanwhile; nothing that was copied may be used before
    `arrive`.

    Args:
        seat: where it sits.
        layout: of all tokens.
        num_heads: of all heads.
    """

    def __init__(self, seat: Seat, layout: TokenLayout, num_heads: int):
        self.rank, self._meeting, self._turn = seat.rank, seat.meeting, 0
        self._heads = _shares(num_heads, seat.parties)
        self._targets, self._sources = _shares(layout.target, seat.parties), _shares(layout.source, seat.parties)
        self._layout = layout
        self._streams, self._here = {}, None  # for copies, by GPU; which GPU this is

    @property
    def target(self) -> int:
        """How many tokens of the target are this GPU's."""
        return _length(self._targets[self.rank])

    def of_target(self, x):
        """This GPU's of the target's tokens.  # [B, target, ...] -> [B, its part, ...]"""
        return x[:, self._targets[self.rank]]

    def of_source(self, x):
        """The same of the source's."""
        return x[:, self._sources[self.rank]]

    def of_both(self, x):
        """The same of all, [B, N, ...], or of the target's where x has no more."""
        own = self.of_target(x)
        if x.shape[1] == self._layout.target:
            return own
        return torch.cat([own, self.of_source(x[:, self._layout.target :])], dim=1)

    def own_heads_of_all(self, x):
        """This GPU's heads of every token, from every GPU's tokens.  # [B, its n, H, D] -> [B, n, its h, D]"""
        return self._all_tokens([x[:, :, heads].contiguous() for heads in self._heads])

    def all_tokens(self, x):
        """What every GPU has for each of its tokens.  # [B, its n, ...] -> [B, n, ...]"""
        return self._all_tokens([x] * len(self._heads))

    def own_tokens_of_all(self, x):
        """All heads of this GPU's tokens, from every GPU's heads.

        Args:
            x: [B, n, its h, D], n all tokens or the target's.

        Returns:
            [B, its n, H, D].
        """
        found = []
        for theirs, ready in self._swap(x):
            parts = [self.of_target(theirs)]
            if x.shape[1] > self._layout.target:
                parts.append(self.of_source(theirs[:, self._layout.target :]))
            heads = x.new_empty(x.shape[0], sum(part.shape[1] for part in parts), *theirs.shape[2:])
            self._follow(heads)
            first = 0
            for part in parts:
                self._copy(heads[:, first : first + part.shape[1]], part, ready)
                first += part.shape[1]
            found.append(heads)
        self.arrive()
        return torch.cat(found, dim=2)

    def arrive(self):
        """What is computed from now on comes after all copies to this GPU so far."""
        if self._here is not None:
            torch.cuda.current_stream(self._here).wait_stream(self._streams[self._here])

    def _all_tokens(self, for_each):
        """Args: for_each: for every GPU what it shall have of this one's tokens."""
        brought = self._swap(for_each)
        own, with_source = for_each[self.rank], for_each[self.rank].shape[1] > self.target
        out = own.new_empty(own.shape[0], self._layout.tokens if with_source else self._layout.target, *own.shape[2:])
        self._follow(out)
        for rank, (pieces, ready) in enumerate(brought):
            piece, of_target = pieces[self.rank], _length(self._targets[rank])
            self._copy(out[:, self._targets[rank]], piece[:, :of_target], ready)
            if with_source:
                sources = self._sources[rank]
                behind = slice(sources.start + self._layout.target, sources.stop + self._layout.target)
                self._copy(out[:, behind], piece[:, of_target:], ready)
        return out

    def _swap(self, value):
        self._turn += 1
        x = value[0] if isinstance(value, list) else value
        ready = None
        if x.is_cuda:
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(x.device))
        return self._meeting.swap(self.rank, self._turn, (value, ready))

    def _follow(self, x):
        """Let copies to x come after what its memory was used for before."""
        if x.is_cuda:
            self._here = x.device
            self._stream(x.device).wait_stream(torch.cuda.current_stream(x.device))

    def _copy(self, into, piece, ready):
        """A copy from any GPU, once that one has come to `ready`."""
        if ready is None:
            into.copy_(piece)
            return
        here, there = self._stream(into.device), self._stream(piece.device)
        for stream in (here, there):
            stream.wait_event(ready)
        # PyTorch copies on the current stream of the GPU that has the data, and lets the other GPU's wait for it.
        with torch.cuda.stream(there), torch.cuda.stream(here):
            for row, its in zip(into, piece, strict=True):  # in one piece each
                row.copy_(its, non_blocking=True)
        piece.record_stream(there)  # its owner may let go of it at once

    def _stream(self, device):
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


def _shares(count, parties):
    """As equal parts as can be, in order."""
    return [slice(count * i // parties, count * (i + 1) // parties) for i in range(parties)]


def _length(part):
    return part.stop - part.start
