"""The state of a run on disk, so that the same run goes on where a crash, an interrupt or a restart stopped it."""

import contextlib
import logging
import os
import platform
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
from safetensors.torch import load, save_file

KEY = "liveditor_run"  # in a file's header: the fingerprint of the run that it belongs to
ANY_SEED = "liveditor_run_with_any_seed"
SUFFIX, UNFINISHED = ".safetensors", ".part"
PROCESS = "process"  # in the header: which one wrote it
DONE = "result"  # in place of all else that the sampler needs, and in the header: nothing is left to do
UNREADABLE = (OSError, ValueError, KeyError, safetensors.SafetensorError)
MOST_BYTES = 16 << 30  # of all runs together
MOST_DAYS = 14
LEFT_FREE = 1 << 30  # bytes of the disk that are never taken
MOST_DECODING = 86400  # seconds that a result of another process is left for its decoding
STALE = 3600  # seconds after which a file that was never finished is removed


class State(NamedTuple):
    """A sampler between two calls of the model."""

    step: int  # steps that are finished
    tensors: dict[str, torch.Tensor]  # what the sampler needs to go on from there
    window: int = 0  # windows of the next step that are finished
    sums: tuple[torch.Tensor, ...] = ()  # what they add up to, per conditioning


class Keeper:
    """Follows one run, and saves its state now and then, and where it ends before its time.

    What cannot be saved or read costs the state and a line in the log, never the run. Of a run that was long enough to
    be saved the result is kept as well, until that of the next one is: what comes after sampling may fail too.

    Args:
        folder: where states lie; it is made where there is none.
        key: fingerprint of the run but for its seed. Only a state that was saved under the same one is taken.
        seed: of the run; the same goes for it.
        seconds: from one saving to the next.
        say: gets the lines for the run's report.
        every: steps that belong together: a run goes on only where so many are finished.
    """

    def __init__(self, folder: Path, key: str, seed: int, seconds: float, say, every: int = 1):
        self._folder, self._seconds, self._say, self._every = Path(folder), seconds, say, every
        self._any_seed, self._seed, self._key = key, seed, f"{key}-{seed}"
        self._path = self._folder / f"{key[:32]}-{seed}{SUFFIX}"
        self._state = self._saved = self._resumed = self._read()
        self._when = time.monotonic()
        self._failed = False
        if self._state is not None and not self._state.window and DONE in self._state.tensors:
            say("it was sampled before, and nothing was computed anew")
        elif self._state is not None:
            where = f"step {self._state.step + 1}"
            if self._state.window:
                where += f", window {self._state.window + 1}"
            say(f"went on at {where}, where the same run was stopped before")
        else:
            self._look_for_other_seeds()

    @property
    def step(self):
        """How many steps are finished where the run goes on, if it is stopped now."""
        return 0 if self._state is None else self._state.step

    @property
    def window(self):
        """How many windows of the next step are finished."""
        return 0 if self._state is None else self._state.window

    def tensors(self, device):
        """What the sampler goes on with, None at the beginning."""
        return None if self._state is None else {name: each.to(device) for name, each in self._state.tensors.items()}

    def unfinished_step(self, sums):
        """How many windows of the first step after a saved state are finished, and what they add up to.

        Nothing, and `sums`, where none is.
        """
        kept, self._resumed = self._resumed, None
        if kept is None or not kept.window:
            return 0, sums
        return kept.window, [own.to(each) for own, each in zip(kept.sums, sums, strict=True)]

    def step_done(self, step, tensors):
        """Args: as in State; the tensors must not be written to afterwards."""
        if step % self._every == 0:
            self._state = State(step, tensors)
            self._save_if_due()

    def window_done(self, window, sums):
        """Args: as in State; the next window may be added to `sums`, if that cannot fail half done."""
        before = self._state or State(0, {})
        self._state = before._replace(window=window, sums=tuple(sums))
        self._save_if_due()

    def stopped(self):
        """Save what there is, after an interrupt or a failure. Says whether something is kept."""
        if self._state is not None and self._state is not self._saved:
            self._save()
        return self._saved is not None and self._saved is self._state

    def sampled(self, result):
        """The sampler is done."""
        if self._state is None or DONE not in self._state.tensors:
            self._state = State(self.step + 1, {DONE: result})

    def finished(self):
        """The run is over: its result takes the place of a state that was saved, and of this process's last result."""
        if self._saved is None:
            return
        for file in self._others():
            with contextlib.suppress(*UNREADABLE):
                header = _header(file)
                # Servers may share the folder, and another one may not have decoded its result yet.
                if DONE in header and (header.get(PROCESS) == _this_process() or _age(file) > MOST_DECODING):
                    file.unlink()
        if self._state is not self._saved:
            self._save()

    def _save_if_due(self):
        if time.monotonic() - self._when >= self._seconds:
            self._save()
            self._when = time.monotonic()

    def _save(self):
        state = self._state
        header = {KEY: self._key, ANY_SEED: self._any_seed, "seed": str(self._seed)}
        header |= {"step": str(state.step), "window": str(state.window), PROCESS: _this_process()}
        if DONE in state.tensors:
            header[DONE] = "1"
        beside = self._path.with_suffix(f".{os.getpid()}{UNFINISHED}")
        try:
            tensors = {f"sampler.{name}": each for name, each in state.tensors.items()}
            tensors |= {f"sums.{i}": each for i, each in enumerate(state.sums)}
            tensors = {name: each.detach().cpu().contiguous() for name, each in tensors.items()}
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(sum(each.nbytes for each in tensors.values()))
            save_file(tensors, beside, header)
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(self._path)
            self._saved = state
        except Exception as error:  # a full disk, a folder that cannot be written to, a GPU that is gone, no RAM left
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            if not self._failed:
                self._failed = True
                line = f"its state could not be saved in {self._folder}: {error}"
                logging.warning(f"LIVEditor: {line}. The edit goes on; it cannot be resumed from here.")
                self._say(line)

    def _others(self):
        return [file for file in self._folder.glob(f"*{SUFFIX}") if file != self._path]

    def _make_room(self, size):
        """Remove states of other runs that are old, or more than there may be."""
        if size > MOST_BYTES:
            raise OSError(f"it takes {size / 2**30:.1f} GiB, and no more than {MOST_BYTES >> 30} GiB are kept")
        found = []
        for file in [*self._others(), *self._folder.glob(f"*{UNFINISHED}")]:
            with contextlib.suppress(OSError):  # another server may have removed it
                found.append((file.stat(), file))
        found.sort(key=lambda other: other[0].st_mtime)
        total = size + sum(stat.st_size for stat, _ in found)
        for stat, file in found:
            # What ends so was left by a process that was killed while it wrote.
            lasts = STALE if file.suffix == UNFINISHED else MOST_DAYS * 86400
            if time.time() - stat.st_mtime > lasts or total > MOST_BYTES and file.suffix == SUFFIX:
                with contextlib.suppress(OSError):  # another program may have opened it
                    file.unlink(missing_ok=True)
                    total -= stat.st_size
        free = shutil.disk_usage(self._folder).free
        if free < size + LEFT_FREE:
            raise OSError(f"it takes {size / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free on the disk")

    def _read(self):
        try:
            if not self._path.is_file():
                return None
            header = _header(self._path)
            if header.get(KEY) != self._key:
                return None
            found = load(self._path.read_bytes())  # a mapped file could not be replaced
            sums = sorted((int(name.removeprefix("sums.")), each) for name, each in found.items() if "sums." in name)
            return State(
                int(header["step"]),
                {name.removeprefix("sampler."): each for name, each in found.items() if name.startswith("sampler.")},
                int(header["window"]),
                tuple(each for _, each in sums),
            )
        except UNREADABLE as error:
            logging.warning(f"LIVEditor: {self._path} cannot be read ({error}); the edit begins anew.")
            return None

    def _look_for_other_seeds(self):
        """The canvas changes seeds by itself after every run, and nobody means to lose hours by that."""
        for file in self._others():
            with contextlib.suppress(*UNREADABLE):
                header = _header(file)
                if header.get(ANY_SEED) == self._any_seed and DONE not in header:
                    line = (
                        f"an edit that differs in its seed alone was stopped at step {int(header['step']) + 1}: set "
                        f"seed to {header['seed']} and control after generate to fixed to go on with it"
                    )
                    logging.warning(f"LIVEditor: {line}.")
                    self._say(line)


def _header(path):
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def _this_process():
    return f"{platform.node()} {os.getpid()}"


def _age(file):
    return time.time() - file.stat().st_mtime
