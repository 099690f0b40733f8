"""python -m batch JOBS --out FOLDER: edit many clips, with ComfyUI's Python, in the pack's folder."""

import argparse
import contextlib
import functools
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:  # `python batch`, where a Python looks for modules in no folder but its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "batch"

try:
    import aiohttp  # noqa: F401
    import psutil  # noqa: F401
    import tqdm  # noqa: F401
except ImportError as error:
    raise SystemExit(f"batch: needs the Python that runs ComfyUI: {error}.") from None

from .driver import WORK, Driver, is_driven, work_folder
from .errors import BatchError, ServerDidNotStart
from .graph import DEFAULT, ROOT, read_graph
from .jobs import left_out, read_jobs, value_of
from .journal import DONE, FAILED, FILE, QUEUED, RUNNING, Journal
from .last_run import last_run, remember
from .local_pool import LocalWorker
from .page import FILE as PAGE
from .progress import Bars
from .server import ComfyUI, Server
from .sweep import sweep
from .table import FILE as TABLE

DESCRIPTION = """Edit many clips: a folder or a list of jobs in, a folder of edits out.

  python -m batch clips/ --instruction "make it snow" --out edits/
  python -m batch jobs.csv --out edits/          columns: video, instruction, and inputs as LIVEditSampler.seed
  python -m batch status edits/
  python -m batch retry edits/ [NAME ...]        failed jobs once more, all or some
  python -m batch sweep clip.mp4 --instruction "make it snow" --out sweep/    one clip over a grid of settings

Start the same again after whatever happened: what is done is skipped, what was begun goes on. edits/index.html shows
all of it."""
NAMED = 5  # of the files that are left out
ALL_DONE, SOME_FAILED, WRONG, ENDED_EARLY = 0, 1, 2, 3


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m batch", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", type=Path, help="a folder of videos, a .csv or a .jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--instruction", help="for every clip that has none of its own")
    parser.add_argument(
        "--workflow",
        type=Path,
        default=DEFAULT,
        help="a workflow file, of the canvas or exported for the API, with one Load Video, LIVEdit Sampler and Save "
        "Video (default: the 14B with the released settings)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="an input of the workflow for all jobs, as LoadLIVEditor.checkpoint=liveditor_14b_fp8.safetensors",
    )
    parser.add_argument("--gpus", help="numbers of the GPUs to use, as 0,1 (default: all)")
    parser.add_argument("--workers", type=int, help="how many, where there is no NVIDIA GPU (default: 1)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work in a Ray cluster, on all of its GPUs: its address, auto for the one that runs here, or local to "
        "start one; machines have pack, ComfyUI, weights, clips and results at the same paths",
    )
    parser.add_argument(
        "--ray-send", action="store_true", help="clips and results go through Ray, not by paths that machines share"
    )
    parser.add_argument(
        "--comfyui", type=Path, default=ROOT.parents[1], help="folder of ComfyUI (default: this pack's)"
    )
    parser.add_argument("--base", type=Path, help="ComfyUI's base directory, where that is another")
    parser.add_argument("--server", default="", help='more arguments for ComfyUI, as --server="--lowvram --fast"')
    parser.add_argument("--leave-free", type=float, default=2.0, metavar="GIB", help="of the disk (default: 2)")
    parser.add_argument(
        "--hang-after",
        type=float,
        default=30.0,
        metavar="MINUTES",
        help="without a word from a server it is started again (default: 30)",
    )
    return parser.parse_args(arguments)


def _setting(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise BatchError(f"--set {text}: must be NODE.INPUT=VALUE.")
    return name, value_of(value)


def gpus():
    """Numbers of the NVIDIA GPUs of this machine."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return listed.stdout.split()


def edit(arguments, out=None, again=None, of_sweep=None):
    """Do what the command line says.

    Args:
        out: the output folder, where that has moved.
        again: names of failed jobs to try once more, none for all; None for no failed job.
        of_sweep: the arguments of the sweep whose edits these are.
    """
    options = parse(arguments)
    options.out = (out or options.out).resolve()
    if options.jobs.resolve() in (options.out, options.out / PAGE, options.out / TABLE):
        raise BatchError(f"--out {options.out}: results would come among the clips, or over the list. Take another.")
    jobs, settings = read_jobs(options.jobs, options.instruction), dict(_setting(text) for text in options.set)
    jobs = [job._replace(inputs=settings | job.inputs) for job in jobs]
    if not (options.comfyui / "main.py").is_file():
        raise BatchError(f"{options.comfyui}: there is no ComfyUI. Say where it is: --comfyui FOLDER.")
    if options.workers is not None and options.workers < 1:
        raise BatchError(f"--workers {options.workers}: must be at least 1.")
    if options.ray_send and not options.ray:
        raise BatchError("--ray-send: needs a cluster. Say which: --ray ADDRESS.")
    work = work_folder(options.out)
    base = options.base and options.base.resolve()
    comfyui = ComfyUI(
        options.comfyui.resolve(), base, arguments=tuple(shlex.split(options.server, posix=os.name != "nt"))
    )
    comfyui.require_free_arguments()
    cluster, workers = (_ray_workers if options.ray else _local_workers)(options, comfyui, work)
    bars = Bars([worker.name for worker in workers])
    graph = read_graph(options.workflow, lambda: _object_info(comfyui.on_cpu(), work))
    driver = Driver(
        options.out,
        graph,
        comfyui.model_folders(),
        left_free=int(options.leave_free * 2**30),
        silence=60 * options.hang_after,
        see=bars,
    )
    try:
        twice = driver.plan(jobs)
        if again is not None:
            _queue_failed(driver, again)
        remember(work, options.out, arguments, of_sweep)
        for clip, name in twice:
            bars.say(f"{clip}: the same as {name}, and done once")
        if others := left_out(options.jobs):
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            bars.say(f"{options.jobs}: left out, as they are no videos: {', '.join(others[:NAMED])}{more}")
        why = driver.run(workers)
        counts = driver.journal.counts(driver.keys)
    finally:
        bars.close()
        for worker in workers:
            worker.close()
        driver.close()
        left = cluster is None or cluster.leave()
    _say(f"{_in_words(counts)}. {(options.out / 'index.html').resolve()}", sys.stdout)
    if counts[FAILED]:
        _say(f"failed ones are tried again by: retry {options.out}", sys.stdout)
    if why:
        _say(why, sys.stderr)
    code = ENDED_EARLY if why else SOME_FAILED if counts[FAILED] else ALL_DONE
    if not left:  # Ray waits at a Python's end for what does not answer
        sys.stdout.flush()
        os._exit(code)
    return code


def _local_workers(options, comfyui, work):
    visible = options.gpus or os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()] or gpus()
    if len(set(names)) < len(names):
        raise BatchError(f"--gpus {visible}: names one twice.")
    if not names:
        names, comfyui = [None] * (options.workers or 1), comfyui.on_cpu()
    comfyui = comfyui._replace(servers=len(names))
    return None, [
        LocalWorker(
            f"worker {i}" if gpu is None else f"GPU {gpu}",
            comfyui,
            (work / f"worker_{i if gpu is None else gpu}").resolve(),
            (work / "user").resolve(),
            gpu,
        )
        for i, gpu in enumerate(names)
    ]


def _ray_workers(options, comfyui, work):
    if options.gpus:
        raise BatchError(f"--gpus {options.gpus}: Ray gives the GPUs out. Leave it, or start Ray's nodes with fewer.")
    try:
        from .ray_pool import join
    except ImportError as error:
        raise BatchError(
            f"--ray {options.ray}: needs the package ray, which Python {sys.version.split()[0]} here has not: {error}. "
            f"Install it: {sys.executable} -m pip install ray. If pip finds none, Ray is not made for this Python yet; "
            "run the batch with a ComfyUI of another."
        ) from None
    return join(options.ray, comfyui, options.out, work, send=options.ray_send, workers=options.workers)


def status(out):
    """Jobs by state, those at work and the failed ones with what they say."""
    journal = _journal(out, to_read=True)
    rows = journal.all()
    journal.close()
    gone = [row for row in rows if row["state"] == DONE and not (out / row["result"]).is_file()]
    counts = {state: sum(row["state"] == state for row in rows) for state in (QUEUED, RUNNING, DONE, FAILED)}
    print(f"{_in_words(counts | {DONE: counts[DONE] - len(gone)})}.")
    for row in gone:
        print(f"gone: {row['result']} was done and is not there; start its list again to make it anew")
    for row in rows:
        if row["state"] == FAILED:
            print(f"failed: {row['name']} {row['message']}")
        elif row["state"] == RUNNING:
            print(f"running: {row['name']} {row['worker'] if is_driven(out) else 'was begun; start again to go on'}")
    return SOME_FAILED if counts[FAILED] or gone else ALL_DONE


def retry(out, names):
    """Failed jobs once more, with the arguments of the last run."""
    _journal(out).close()
    last, out = last_run(out / WORK, out.resolve()), out.resolve()
    with contextlib.suppress(OSError):  # the folder is gone; paths may be whole
        os.chdir(last.folder)
    if last.sweep:
        again = [*last.sweep, "--out", str(out)]
        return sweep(again, functools.partial(edit, again=names, of_sweep=again), WORK)
    return edit(last.arguments, out, names)


def _queue_failed(driver, names):
    """Those of the last run's failed jobs that are named, all if none is."""
    failed = {row["name"]: row["key"] for row in driver.journal.all() if row["state"] == FAILED}
    unknown = [name for name in names if name not in failed]
    if unknown:
        raise BatchError(f"{', '.join(unknown)}: no such job failed. `status` names those that did.")
    for name in names or failed:
        if failed[name] in driver.keys:
            driver.journal.retry(failed[name])
        else:
            print(f"{name} is not among the jobs of the last run: start that list again", file=sys.stderr)


def _journal(out, to_read=False):
    if not (out / WORK / FILE).is_file():
        raise BatchError(f"{out}: no batch has run here.")
    return Journal(out / WORK, to_read)


def _object_info(comfyui, work):
    """What ComfyUI says of its nodes, from a server for that alone."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        server = Server(comfyui, folder, work / "user", None)
        try:
            server.start()
            return server.nodes()
        except ServerDidNotStart as error:
            raise BatchError(str(error)) from None
        finally:
            server.stop()


def _in_words(counts):
    return (
        ", ".join(f"{counts[state]} {state}" for state in (DONE, FAILED, RUNNING, QUEUED) if counts[state]) or "no jobs"
    )


def _hung_up(terminals):
    """End as by ^C when the terminal is closed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it may come twice, to the session's first process and to its group
    _write_nowhere(terminals)
    raise KeyboardInterrupt


def _write_nowhere(numbers):
    """Nothing can be written to a terminal that was closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in numbers:
        os.dup2(nowhere, number)


def _say(text, file):
    try:
        print(text, file=file, flush=True)
    except OSError:  # the terminal was closed, and this went on: it was told not to hear of that
        _write_nowhere((1, 2))


def main(arguments):
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have it ignored, as of what it starts with &
        signal.signal(number, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        terminals = [number for number in (1, 2) if os.isatty(number)]
        signal.signal(signal.SIGHUP, lambda *_: _hung_up(terminals))
    try:
        if arguments[:1] in (["status"], ["retry"]) and (arguments[1:2] or ["-h"])[0] in ("-h", "--help"):
            raise BatchError(f"{arguments[0]}: of which output folder?")
        if arguments[:1] == ["status"] and len(arguments) == 2:
            return status(Path(arguments[1]))
        if arguments[:1] == ["retry"] and len(arguments) >= 2:
            return retry(Path(arguments[1]), arguments[2:])
        if arguments[:1] == ["sweep"]:
            return sweep(arguments[1:], functools.partial(edit, of_sweep=arguments[1:]), WORK)
        return edit(arguments)
    except BatchError as error:
        print(f"batch: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("batch: stopped", file=sys.stderr)
        return ENDED_EARLY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
