"""Frames of a clip on disk, so that clips of any length take no memory."""

import errno
import os
import shutil
import tempfile
import threading

import torch

from .errors import FootageError

FULL = 65535  # of a value of 1, in 16 bits


class Spool:
    """Frames [height, width, 3] in 0..1, in 16 bits each value, in a file without a name that is gone with the object.

    Values outside are clamped, and NaN becomes 0. One thread may read while another writes.

    Args:
        folder: made if it is not there.
        expected: how many frames are to come, if that is known.

    Raises:
        FootageError: the disk has no room for the expected frames, or later for those that come.
    """

    def __init__(self, folder, height, width, expected=0):
        self.height, self.width = height, width
        self.folder, self._length, self._lock = str(folder), 0, threading.Lock()
        os.makedirs(folder, exist_ok=True)
        if expected * self._frame_bytes > shutil.disk_usage(folder).free:
            raise self._no_room(expected)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (lives as long as the object)

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        """Frame `index`, fp32 [height, width, 3]."""
        if not 0 <= index < self._length:
            raise IndexError(f"Spool: frame must be in 0..{self._length - 1}, got {index}.")
        with self._lock:
            return self._read(index, 0, self.height).float() / FULL

    def append(self, frames):
        """Put frames [n, height, width, 3] at the end."""
        for frame in frames:
            with self._lock:
                self._write(self._length, 0, frame)
                self._length += 1

    def set_length(self, count):
        """Cut frames off at the end, or put black ones there."""
        if (count - self._length) * self._frame_bytes > shutil.disk_usage(self.folder).free:
            raise self._no_room(count)
        with self._lock:
            self._file.truncate(count * self._frame_bytes)
            self._length = count

    def add(self, first, y, x, tile):
        """Add a tile [n, h, w, 3] to what frames from `first` on hold at row y, column x."""
        height, width = tile.shape[1:3]
        for index, part in enumerate(tile, first):
            with self._lock:
                rows = self._read(index, y, height).float() / FULL
                rows[:, x : x + width] += part.to(rows)
                self._write(index, y, rows)

    @property
    def _frame_bytes(self):
        return self.height * self.width * 3 * 2

    def _at(self, index, row):
        return index * self._frame_bytes + row * self.width * 3 * 2

    def _read(self, index, row, height):
        rows = torch.empty(height, self.width, 3, dtype=torch.uint16)
        self._file.seek(self._at(index, row))
        self._file.readinto(rows.view(torch.uint8).numpy())
        return rows

    def _write(self, index, row, rows):
        rows = rows.to("cpu", torch.float32).nan_to_num(0.0).clamp(0, 1).mul(FULL).round().to(torch.uint16)
        try:
            self._file.seek(self._at(index, row))
            self._file.write(rows.contiguous().view(torch.uint8).numpy())
            self._file.flush()  # else the disk may turn out to be full only when nobody listens
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise self._no_room(max(self._length, index + 1)) from error

    def _no_room(self, count):
        free = shutil.disk_usage(self.folder).free
        return FootageError(
            f"needs {count * self._frame_bytes / 1e9:.3g} GB in {self.folder} for {count} frames on their way, got "
            f"{free / 1e9:.3g} GB free. Start ComfyUI with --temp-directory on a larger disk, or edit less at a time."
        )
