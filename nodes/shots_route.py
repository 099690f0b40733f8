"""What the canvas asks the server of a file: how long it is, and where its shots begin."""

import asyncio
import contextlib
import math
import os
import threading

import folder_paths

from ..liveditor_core.footage.errors import FootageError
from ..liveditor_core.footage.shots import shots_of_file
from . import host_server

PATH = "/liveditor/shots"
KEPT = 64  # answers
AT_ONCE = 2  # files that are read
LOOK_UP = 0.5  # seconds from one look at whether somebody still waits to the next


class Unwanted(Exception):
    """Nobody waits for an answer any more."""


def register():
    """Answer GET PATH?file=NAME&start=SECONDS&seconds=SECONDS with Shots; NAME is what Load Video has chosen."""
    routes = host_server.routes_without(PATH)
    if routes is None:
        return

    from aiohttp import web

    readings = Readings()

    def refused(status, message):
        return web.json_response({"error": message}, status=status)

    @routes.get(PATH)
    async def shots(request):
        path = path_of(request.query.get("file", ""))
        if path is None:
            return refused(404, "file must be one in ComfyUI's input, output or temp folder")
        try:
            part = [_seconds(request.query, name) for name in ("start", "seconds")]
        except ValueError as error:
            return refused(400, str(error))

        def is_wanted():
            return request.transport is not None and not request.transport.is_closing()

        try:
            answer = await readings.answer(path, part[0] or 0.0, part[1], is_wanted)
        except (FootageError, OSError) as error:
            return refused(422, _without_folders(str(error), path))
        except Unwanted as error:
            return refused(499, str(error))
        return web.json_response(answer._asdict())


def path_of(name):
    """The file of Load Video's choice; None if there is none, or not within the folders that ComfyUI shows to all."""
    try:
        path = os.path.abspath(folder_paths.get_annotated_filepath(name))
    except ValueError:
        return None
    folders = folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    return (
        path if any(_is_within(path, os.path.abspath(folder)) for folder in folders) and os.path.isfile(path) else None
    )


def _is_within(path, folder):
    """By its name: where links in the folder lead is the user's own choice, as it is for Load Video."""
    try:
        return os.path.commonpath((path, folder)) == folder
    except ValueError:  # on another drive
        return False


def _without_folders(message, path):
    """FFmpeg names the whole path, also as Python would write it."""
    for written in (path, repr(path)[1:-1]):
        message = message.replace(written, os.path.basename(path))
    return message


def _seconds(query, name):
    """A number of seconds; None where it is not given."""
    if name not in query:
        return None
    try:
        seconds = float(query[name])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be seconds from 0 on, got {query[name]}")
    return seconds


class Readings:
    """Looks at files: each once for all that ask for the same meanwhile. The last answers are kept.

    Args:
        look: as shots_of_file.
    """

    def __init__(self, look=shots_of_file):
        self._look, self._turns = look, asyncio.Semaphore(AT_ONCE)
        self._kept = {}  # by file as it is now and part

    async def answer(self, path, start, seconds, is_wanted=lambda: True):
        """What `look` gives.

        Args:
            is_wanted: whether the one that asks still waits. A reading that nobody waits for ends.

        Raises:
            Unwanted: it does not.
        """
        stat = os.stat(path)
        key = path, stat.st_size, stat.st_mtime_ns, start, seconds
        turns = contextlib.nullcontext() if seconds == 0 else self._turns  # how long a clip is must not wait for scans
        reading = self._kept.pop(key, None) or _Reading(self._look, turns, path, start, seconds)
        self._kept[key] = reading  # the last one asked for is the last to go
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        reading.waiting += 1
        try:
            while not reading.result.done():
                await asyncio.wait({reading.result}, timeout=LOOK_UP)
                if not is_wanted():
                    raise Unwanted("nobody waits for it")
            return reading.result.result()
        finally:
            reading.waiting -= 1
            if not reading.waiting and not reading.is_good():
                reading.unwanted.set()
                if self._kept.get(key) is reading:
                    del self._kept[key]


class _Reading:
    def __init__(self, look, turns, *part):
        self.waiting, self.unwanted = 0, threading.Event()
        self.result = asyncio.ensure_future(self._read(look, turns, part))
        self.result.add_done_callback(lambda result: result.cancelled() or result.exception())  # somebody has seen it

    def is_good(self):
        return self.result.done() and not self.result.cancelled() and self.result.exception() is None

    def check(self, _time):
        if self.unwanted.is_set():
            raise Unwanted("nobody waits for it")

    async def _read(self, look, turns, part):
        async with turns:
            return await _in_thread(look, *part, self.check)


async def _in_thread(function, *arguments):
    """Call a function in a thread that does not keep ComfyUI from ending, as those of asyncio.to_thread do."""
    loop = asyncio.get_running_loop()
    result = loop.create_future()

    def finish(value, error):
        if not result.cancelled():
            result.set_result(value) if error is None else result.set_exception(error)

    def work():
        value = error = None
        try:
            value = function(*arguments)
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(finish, value, error)

    threading.Thread(target=work, name="liveditor shots", daemon=True).start()
    return await result
