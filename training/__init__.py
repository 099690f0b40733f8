"""Training of the small model that ships with this pack; see README.md beside this file."""

import sys
import types
from pathlib import Path

if "liveditor" not in sys.modules:  # the pack under a fixed name, whatever its folder is called
    package = types.ModuleType("liveditor")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["liveditor"] = package
