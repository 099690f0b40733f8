"""Training of the small model that ships with this pack; see README.md beside this file."""

import sys
import types
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
if "liveditor" not in sys.modules:  # the pack under a fixed name, whatever its folder is called
    package = types.ModuleType("liveditor")
    package.__path__ = [str(PACK)]
    sys.modules["liveditor"] = package
sys.path[:] = [
    path for path in sys.path if Path(path or ".").resolve() != PACK
]  # its nodes/ would hide the host's nodes.py
