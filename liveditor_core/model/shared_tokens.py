"""One call of the model on several GPUs: each has a part of the tokens, and in self-attention a part of the heads.

Everything but self-attention concerns each token alone, and within self-attention every head is alone; so before it
every GPU sends the others their heads of its tokens, and after it their tokens of its heads ("Ulysses",
arXiv 2309.14509). Every GPU has a part of the target and as large a part of the source, so that a call without the
source, and the last block, which only the target's tokens leave, are shared as evenly.
"""

import threading

import torch

from ..attention.token_layout import TokenLayout

WITHIN, BETWEEN = "within", "between"  # ways of copies: on one GPU, from one to another


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
        self._others = [rank for rank in range(seat.parties) if rank != seat.rank]
        self._streams, self._here = {}, None  # for copies, by GPU and way; which GPU this is
        self._answers, self._room = [], None  # of heads that are on their way; where those of all heads shall be

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
        pieces = [_wide(x[:, :, heads]) for heads in self._heads]
        for rank in self._others:  # what goes to another GPU goes in one piece
            pieces[rank] = pieces[rank].contiguous()
        return self._all_tokens(pieces).view(x.dtype)

    def all_tokens(self, x):
        """What every GPU has for each of its tokens.  # [B, its n, ...] -> [B, n, ...]"""
        return self._all_tokens([x] * len(self._heads))

    def answered(self, x):
        """A function that sends the answers of heads while those of others are computed.

        Args:
            x: [B, n, its h, D], as `own_tokens_of_all` will get it; here only its shape counts.

        Returns:
            A function of what holds them, [B, its h, n or more, D], and the heads' numbers; None where they go together
            later.
        """
        if len(x) > 1:
            return None
        self._room = self._rooms(_wide(x))
        self._follow(BETWEEN)
        tokens = x.shape[1]
        return lambda answers, heads: self._send(answers.transpose(1, 2)[:, :tokens], heads)

    def own_tokens_of_all(self, x):
        """All heads of this GPU's tokens, from every GPU's heads.

        Args:
            x: [B, n, its h, D], n all tokens or the target's.

        Returns:
            [B, its n, H, D].
        """
        dtype = x.dtype
        if not self._answers:
            self._send(x, list(range(x.shape[2])))
        x = _wide(x)
        if self._room is None:
            self._room = self._rooms(x)
            self._follow(BETWEEN)
        self._follow(WITHIN)
        (out, arrivals), answers = self._room, self._answers
        self._room, self._answers = None, []
        self._take_tokens(self.rank, x, out[:, :, self._heads[self.rank]])
        brought = self._swap(answers)
        for rank in self._others:
            first = 0
            for runs, pieces, ready in brought[rank]:
                piece = pieces[self.rank]
                arrival = arrivals[rank][first : first + piece.numel()].view(piece.shape)
                first += piece.numel()
                self._copy(arrival, piece, BETWEEN, ready)
                for heads, place in runs:
                    there = slice(self._heads[rank].start + heads.start, self._heads[rank].start + heads.stop)
                    self._copy(out[:, :, there], arrival[:, :, place], BETWEEN)
        self.arrive()
        return out.view(dtype)

    def arrive(self):
        """What is computed from now on comes after all copies to this GPU so far."""
        if self._here is not None:
            for way in (WITHIN, BETWEEN):
                torch.cuda.current_stream(self._here).wait_stream(self._stream(self._here, way))

    def _rooms(self, x):
        """Where all heads of this GPU's tokens shall be, and where they arrive from each other GPU."""
        tokens = self._count(self.rank, self._has_source(x))
        out = x.new_empty(x.shape[0], tokens, self._heads[-1].stop, x.shape[-1])
        self._here = x.device if x.is_cuda else None
        return out, {rank: x.new_empty(out[:, :, self._heads[rank]].numel()) for rank in self._others}

    def _send(self, x, heads):
        """Let other GPUs have their tokens of some heads.

        Args:
            x: [B, n, its h, D].
            heads: numbers of those, ascending.
        """
        x, runs = _wide(x), _runs(heads)
        pieces = {
            rank: x.new_empty(x.shape[0], self._count(rank, self._has_source(x)), len(heads), x.shape[-1])
            for rank in self._others
        }
        self._follow(WITHIN)
        for rank, piece in pieces.items():
            for run, place in runs:
                self._take_tokens(rank, x[:, :, run], piece[:, :, place])
        self._answers.append((runs, pieces, self._event(x, WITHIN)))

    def _take_tokens(self, rank, x, into):
        """A GPU's tokens of all, in one row.  # [B, n, ...] into [B, its n, ...]"""
        targets, sources, target = self._targets[rank], self._sources[rank], self._layout.target
        self._copy(into[:, : _length(targets)], x[:, targets], WITHIN)
        if self._has_source(x):
            self._copy(into[:, _length(targets) :], x[:, target + sources.start : target + sources.stop], WITHIN)

    def _all_tokens(self, for_each):
        """Args: for_each: for every GPU what it shall have of this one's tokens."""
        own = for_each[self.rank]
        with_source = own.shape[1] > self.target
        out = own.new_empty(own.shape[0], self._layout.tokens if with_source else self._layout.target, *own.shape[2:])
        self._here = out.device if out.is_cuda else None
        self._follow(WITHIN)
        self._follow(BETWEEN)
        self._put_tokens(self.rank, own, out, WITHIN)
        brought = self._swap((for_each, self._event(own)))
        for rank in self._others:
            pieces, ready = brought[rank]
            self._put_tokens(rank, pieces[self.rank], out, BETWEEN, ready)
        return out

    def _put_tokens(self, rank, x, into, way, ready=None):
        """A GPU's tokens to their places among all.  # [B, its n, ...] into [B, n, ...]"""
        targets, sources, target = self._targets[rank], self._sources[rank], self._layout.target
        self._copy(into[:, targets], x[:, : _length(targets)], way, ready)
        if self._has_source(into):
            places = into[:, target + sources.start : target + sources.stop]
            self._copy(places, x[:, _length(targets) :], way, ready)

    def _has_source(self, x):
        return x.shape[1] > self._layout.target

    def _count(self, rank, with_source):
        """How many tokens a GPU has."""
        return _length(self._targets[rank]) + (_length(self._sources[rank]) if with_source else 0)

    def _swap(self, value):
        self._turn += 1
        return self._meeting.swap(self.rank, self._turn, value)

    def _event(self, x, way=None):
        """When this GPU has come to here in what it computes, or in copies of a way."""
        if not x.is_cuda:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(x.device) if way is None else self._stream(x.device, way))
        return event

    def _follow(self, way):
        """Let this GPU's copies of a way come after what it computed before."""
        if self._here is not None:
            self._stream(self._here, way).wait_stream(torch.cuda.current_stream(self._here))

    def _copy(self, into, piece, way, ready=None):
        """A copy from any GPU, once that one has come to `ready`, and after earlier ones of this way to this GPU."""
        if not into.is_cuda:
            into.copy_(piece)
            return
        here, there = self._stream(into.device, way), self._stream(piece.device, way)
        if ready is not None:
            for stream in (here, there):
                stream.wait_event(ready)
        # PyTorch copies on the current stream of the GPU that has the data, and lets the other GPU's wait for it.
        with torch.cuda.stream(there), torch.cuda.stream(here):
            for row, its in zip(into, piece, strict=True):  # in one piece each
                row.copy_(its, non_blocking=True)
        piece.record_stream(there)  # its owner may let go of it at once

    def _stream(self, device, way):
        if (device, way) not in self._streams:
            self._streams[device, way] = torch.cuda.Stream(device)
        return self._streams[device, way]


def _runs(numbers):
    """Ascending numbers as slices of those that follow each other, each with its place in the list."""
    runs = []
    for place, number in enumerate(numbers):
        if runs and number == runs[-1][0].stop:
            run, places = runs[-1]
            runs[-1] = slice(run.start, number + 1), slice(places.start, place + 1)
        else:
            runs.append((slice(number, number + 1), slice(place, place + 1)))
    return runs


def _wide(x):
    """The same bytes as numbers of eight: PyTorch copies number by number what does not lie in one piece."""
    return x.view(torch.int64) if x.shape[-1] * x.element_size() % 8 == 0 and x.stride(-1) == 1 else x


def _shares(count, parties):
    """As equal parts as can be, in order."""
    return [slice(count * i // parties, count * (i + 1) // parties) for i in range(parties)]


def _length(part):
    return part.stop - part.start
