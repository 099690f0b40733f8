"""What is kept of a source in RAM, on its way to and from the GPU while that computes."""

import contextlib

import torch

import comfy.model_management

from ..attention.kept_source import KeptSource

ON_THE_GPU = 3  # blocks' sources that lie there at once: on its way to RAM or at work, and the next


class KeptInRam:
    """The KeptSource of every block of one prompt; all blocks are put before the first is got, in their order."""

    def __init__(self, device):
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._device = device
        self._buffers = []  # of every block: bytes in RAM, and whether they are pinned
        self._places = []  # of every block: tensors that lie in them
        self._coming = {}  # by block: copies on the GPU, and what says that they are whole
        self._blocks = 0

    def __len__(self):
        return self._blocks

    def __setitem__(self, block, source: KeptSource):
        if block == len(self._places):
            self._make_place(source)
        with self._apart():
            for place, x in zip(self._places[block], source, strict=True):
                place.copy_(x, non_blocking=True)
                if self._stream is not None:
                    x.record_stream(self._stream)
        self._blocks = block + 1

    def __getitem__(self, block) -> KeptSource:
        found, whole = self._coming.pop(block, None) or self._fetch(block)
        if block + 1 < self._blocks:
            self._coming[block + 1] = self._fetch(block + 1)
        if self._stream is not None:
            at_work = torch.cuda.current_stream(self._device)
            at_work.wait_event(whole)
            for x in found:
                x.record_stream(at_work)
        return found

    def restart(self):
        """Forget everything but keep the RAM, for the next sources."""
        self._coming.clear()
        self._blocks = 0

    def clear(self):
        """Give the RAM back."""
        if self._stream is not None:
            self._stream.synchronize()
        self.restart()
        self._places.clear()
        for buffer, pinned in self._buffers:
            if pinned:
                comfy.model_management.unpin_memory(buffer)
        self._buffers.clear()

    def _fetch(self, block):
        with self._apart():
            found = KeptSource(*(x.to(self._device, non_blocking=True, copy=True) for x in self._places[block]))
            return found, None if self._stream is None else self._stream.record_event()

    @contextlib.contextmanager
    def _apart(self):
        """On a stream beside the one at work, after what was queued there."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield

    def _make_place(self, source):
        buffer = torch.empty(sum(x.nbytes for x in source), dtype=torch.uint8)
        # What the host cannot pin is copied all the same, more slowly.
        self._buffers.append((buffer, self._stream is not None and comfy.model_management.pin_memory(buffer)))
        parts = buffer.split([x.nbytes for x in source])
        self._places.append([part.view(x.dtype).view(x.shape) for part, x in zip(parts, source, strict=True)])
