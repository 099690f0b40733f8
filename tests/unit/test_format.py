"""Format and lint are those that `python tasks.py lint` asks for, and shipped files stay short."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 350  # lines of a shipped file of code


def test_lint_is_clean():
    run = subprocess.run([sys.executable, ROOT / "tasks.py", "lint"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_shipped_code_comes_in_short_files():
    patterns = ("*.py", "nodes/*.py", "liveditor_core/**/*.py", "kernels/**/*.py", "web/*.js")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert len(lengths) > 60 and {path.name: n for path, n in lengths.items() if n > LONGEST} == {}
