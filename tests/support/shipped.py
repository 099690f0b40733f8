"""The Python files that users get."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(
    path
    for pattern in ("*.py", "nodes/*.py", "liveditor_core/**/*.py", "kernels/**/*.py", "batch/*.py")
    for path in ROOT.glob(pattern)
    if path.name != "tasks.py"
)


def own_imports(path):
    """The files of this project that run when a file of it is imported or used, itself included."""
    found, left = set(), [path]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                for place in (folder, *(folder / alias.name for alias in node.names)):
                    left += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found
