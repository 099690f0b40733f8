"""The pack as a package: what importing it does, and what ComfyUI's own validators say of it."""

import json
import subprocess
import sys
from pathlib import Path

import host
import pytest

COMFY = str(Path(sys.executable).with_name("comfy"))


def test_import_is_quick_and_changes_nothing_of_the_host():
    out = subprocess.check_output([sys.executable, "-B", str(host.PACK / "tests/support/import_probe.py"), str(host.PACK)], text=True)
    result = json.loads(out.strip().splitlines()[-1])
    assert result["nodes"] == 8
    assert result["seconds"] < 0.5
    assert result["events"] == [] and result["changed"] == [] and result["optional"] == []


@pytest.mark.parametrize("path", sorted((host.PACK / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_workflow_validates(client, path, tmp_path):
    info = client.get("object_info")
    # The models that the workflow names are not on this machine; everything else must be right.
    for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
        for entry in info.get(node["type"], {"input": {"required": {}}})["input"]["required"].values():
            options = entry[0] if isinstance(entry[0], list) else dict(*entry[1:]).get("options")
            if options is not None:
                options.extend(model["name"] for model in node["properties"].get("models", []))
    (tmp_path / "object_info.json").write_text(json.dumps(info))
    run = subprocess.run([COMFY, "--json", "workflow", "validate", "--workflow", str(path), "--input", str(tmp_path / "object_info.json")],
                         capture_output=True, text=True)
    answer = json.loads(run.stdout.strip().splitlines()[-1])
    assert answer["ok"] and not answer["data"].get("warnings"), answer


def test_node_package_validates():
    run = subprocess.run([COMFY, "node", "validate"], cwd=host.PACK, capture_output=True, text=True)
    assert run.returncode == 0 and "warning" not in (run.stdout + run.stderr).lower(), run.stdout + run.stderr
