"""One call of the model on several GPUs: each has a part of the tokens, and in self-attention a part of the heads.

Everything but self-attention concerns each token alone, and within self-attention every head is alone; so before it
every GPU sends the others their heads of its tokens, and after it their tokens of its heads ("Ulysses",
arXiv 2309.14509). Every GPU has a part of the target and as large a part of the source, so that a call without the
source, and the last block, which only the target's tokens leave, are shared as evenly.
"""

import contextlib
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

    def end(self):
        """Let go of what was brought last, once all threads have ended."""
        for brought in self._brought:
            brought[:] = [None] * len(brought)


class Seat:
    """Of one GPU in a call.

    Args:
        rank: its number among those of the call, from 0.
        parties: how many there are.
    """

    def __init__(self, rank: int, parties: int, meeting: Meeting):
        self.rank, self.parties = rank, parties
        self._meeting, self._turn = meeting, 0

    def part(self, layout: TokenLayout, num_heads: int, device) -> "Part":
        return Part(self, layout, num_heads, device)

    def swap(self, value):
        """Everybody's values, as `Meeting.swap`."""
        self._turn += 1
        return self._meeting.swap(self.rank, self._turn, value)


class Part:
    """Tokens and heads of one GPU in one call.

    Copies run on streams of their own, beside what is computed meanwhile; nothing that was copied may be used before
    `arrive`. If an exchange fails, what was copied to may be written to until the GPU has come to its end.

    Args:
        seat: where it sits.
        layout: of all tokens.
        num_heads: of all heads.
        device: the GPU, or another device, on which copies are made at once.
    """

    def __init__(self, seat: Seat, layout: TokenLayout, num_heads: int, device):
        self.rank, self._seat, self._layout = seat.rank, seat, layout
        self._heads = _shares(num_heads, seat.parties)
        self._targets, self._sources = _shares(layout.target, seat.parties), _shares(layout.source, seat.parties)
        self._others = [rank for rank in range(seat.parties) if rank != seat.rank]
        self._device = device if device.type == "cuda" else None
        self._within, self._between = _streams_of(self._device, 2)  # copies on this GPU, and to it
        # Streams of the GPUs that bring something, for copies to this one. One GPU may sit in several seats.
        self._theirs = {} if self._device is None else {self._between.device: self._between}
        self._answers, self._rooms = [], None  # of heads, on their way; where those of all heads are to be

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
            x: like what `own_tokens_of_all` will get, [B, n, its h, D]; its numbers do not count.

        Returns:
            A function of what holds them, [B, its h, n or more, D], and the heads' numbers; None for several prompts,
            whose heads are not answered one after the other.
        """
        if len(x) > 1:
            return None
        tokens = x.shape[1]
        self._make_rooms(_wide(x))
        return lambda answers, heads: self._send(answers.transpose(1, 2)[:, :tokens], heads)

    def own_tokens_of_all(self, x):
        """All heads of this GPU's tokens, from every GPU's heads.

        Args:
            x: [B, n, its h, D], n all tokens or the target's.

        Returns:
            [B, its n, H, D].
        """
        if not self._answers:
            self._send(x, list(range(x.shape[2])))
        if self._rooms is None:
            self._make_rooms(_wide(x))
        (out, arrivals), answers = self._rooms, self._answers
        self._rooms, self._answers = None, []
        self._follow(self._within)
        with self._copying_within():
            self._take_tokens(self.rank, _wide(x), out[:, :, self._heads[self.rank]])
        brought = self._seat.swap(answers)
        for rank in self._others:
            first, arrived = self._heads[rank].start, 0
            for runs, pieces, ready in brought[rank]:
                piece = pieces.pop(self.rank)  # with it goes its memory
                arrival = arrivals[rank][arrived : arrived + piece.numel()].view(piece.shape)
                arrived += piece.numel()
                with self._copying_from(piece, ready):
                    arrival.copy_(piece, non_blocking=True)
                    for heads, place in runs:
                        out[:, :, first + heads.start : first + heads.stop] = arrival[:, :, place]
        self.arrive()
        return out.view(x.dtype)

    def arrive(self):
        """What is computed from now on comes after all copies to this GPU so far."""
        if self._device is not None:
            for stream in (self._within, self._between):
                torch.cuda.current_stream(self._device).wait_stream(stream)

    def _make_rooms(self, x):
        """For all heads of this GPU's tokens, and for what arrives from each other GPU."""
        out = x.new_empty(x.shape[0], self._count(self.rank, x), self._heads[-1].stop, x.shape[-1])
        self._rooms = out, {rank: x.new_empty(out[:, :, self._heads[rank]].numel()) for rank in self._others}
        self._follow(self._between)

    def _send(self, x, heads):
        """Let other GPUs have their tokens of some heads.

        Args:
            x: [B, n, its h, D].
            heads: numbers of those, ascending.
        """
        x, runs = _wide(x), _runs(heads)
        pieces = {rank: x.new_empty(x.shape[0], self._count(rank, x), len(heads), x.shape[-1]) for rank in self._others}
        self._follow(self._within)
        with self._copying_within():
            for rank, piece in pieces.items():
                for run, place in runs:
                    self._take_tokens(rank, x[:, :, run], piece[:, :, place])
            self._answers.append((runs, pieces, self._come_so_far()))

    def _take_tokens(self, rank, x, into):
        """A GPU's tokens of all, in one row.  # [B, n, ...] into [B, its n, ...]"""
        targets, sources, target = self._targets[rank], self._sources[rank], self._layout.target
        into[:, : _length(targets)] = x[:, targets]
        if x.shape[1] > target:
            into[:, _length(targets) :] = x[:, target + sources.start : target + sources.stop]

    def _all_tokens(self, for_each):
        """Args: for_each: for every GPU what it shall have of this one's tokens; it is emptied."""
        own, for_each[self.rank] = for_each[self.rank], None
        tokens = self._layout.tokens if own.shape[1] > self.target else self._layout.target
        out = own.new_empty(own.shape[0], tokens, *own.shape[2:])
        for stream in (self._within, self._between):
            self._follow(stream)
        brought_for_each = for_each, self._come_so_far()
        with self._copying_within():
            self._put_tokens(self.rank, own, out)
            if self._device is not None:
                own.record_stream(self._within)  # whoever brought it may let go of it at once
        brought = self._seat.swap(brought_for_each)
        for rank in self._others:
            pieces, ready = brought[rank]
            with self._copying_from(pieces[self.rank], ready):
                self._put_tokens(rank, pieces[self.rank], out)
            pieces[self.rank] = None  # with it goes its memory
        return out

    def _put_tokens(self, rank, x, into):
        """A GPU's tokens to their places among all.  # [B, its n, ...] into [B, n, ...]"""
        targets, sources, target = self._targets[rank], self._sources[rank], self._layout.target
        for row, its in zip(into, x, strict=True):  # from another GPU, in one piece each
            row[targets].copy_(its[: _length(targets)], non_blocking=True)
            if len(row) > target:
                behind = row[target + sources.start : target + sources.stop]
                behind.copy_(its[_length(targets) :], non_blocking=True)

    def _count(self, rank, x):
        """How many of the tokens in x, [B, n, ...], are a GPU's."""
        return _length(self._targets[rank]) + (_length(self._sources[rank]) if x.shape[1] > self._layout.target else 0)

    def _come_so_far(self):
        """When this GPU has come to here, in what it computes or copies now."""
        if self._device is None:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _follow(self, stream):
        """Let copies come after what this GPU computed before."""
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self._device))

    def _copying_within(self):
        return contextlib.nullcontext() if self._device is None else torch.cuda.stream(self._within)

    @contextlib.contextmanager
    def _copying_from(self, piece, ready):
        """Of what another GPU has brought, once that one has come to `ready`."""
        if self._device is None:
            yield
            return
        if piece.device not in self._theirs:
            (self._theirs[piece.device],) = _streams_of(piece.device, 1)
        theirs = self._theirs[piece.device]
        theirs.wait_event(ready)
        # PyTorch copies on the current stream of the GPU that has the data, and lets the other GPU's wait for it.
        with torch.cuda.stream(theirs), torch.cuda.stream(self._between):
            yield
        piece.record_stream(theirs)


def _streams_of(device, count):
    return [None if device is None else torch.cuda.Stream(device) for _ in range(count)]


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
