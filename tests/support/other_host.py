"""What other users have: another version of the host, other things in custom_nodes."""

import json
import os
import re
import shutil

import host

PACK_FOLDER = "ComfyUI-LIVEditor"
NOT_CODE = shutil.ignore_patterns("__pycache__", ".*", "tests*")


def comfyui(folder, version=None, renamed=()):
    """The host's code with another version number, or with some of its names changed throughout.

    Files are linked, and those that differ written anew.
    """

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy(source, target)

    tree = folder / "ComfyUI"
    shutil.copytree(host.COMFYUI.resolve(), tree, copy_function=link, ignore=NOT_CODE)
    if version:
        _rewrite(tree / "comfyui_version.py", f'__version__ = "{version}"\n')
    name = re.compile(rf"\b({'|'.join(renamed)})\b(?! as )")
    for path in tree.rglob("*.py") if renamed else ():
        text = path.read_text(encoding="utf-8")
        if name.search(text):
            # what the host takes from a package of its own has its old name there
            text = re.sub(r"from comfy_kitchen[^)]*\)", lambda found: name.sub(r"\1 as \1_elsewhere", found[0]), text)
            _rewrite(path, name.sub(r"\1_elsewhere", text))
    return tree


def _rewrite(path, text):
    path.unlink()  # or the file that it is linked to would change
    path.write_text(text, encoding="utf-8")


def base(folder, packs=(PACK_FOLDER,)):
    """A user's folder for `host.Server`, with the pack under these names in custom_nodes, and a clip."""
    base = folder / "base"
    for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (base / name).mkdir(parents=True)
    shutil.copy(host.CLIPS / "bikes.mp4", base / "input")
    for name in packs:
        (base / "custom_nodes" / name).symlink_to(host.PACK, target_is_directory=True)
    return base


def own_nodes(client, folder=PACK_FOLDER):
    """The names of the nodes that a copy of the pack offers."""
    found = client.get("object_info")
    return {name for name, node in found.items() if node["python_module"] == f"custom_nodes.{folder}"}


def small_edit():
    """The demo in API format, with the small model, smaller."""
    path = host.PACK / "workflows" / "api" / "liveditor_demo_api.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    host.set_inputs(prompt, "EncodeSourceVideo", width=128, height=64, max_frames=5)
    host.set_inputs(prompt, "LIVEditSampler", steps=2)
    return prompt


def lines(server, words):
    """The lines of the server's log that say this."""
    return [line for line in server.log_text().splitlines() if words in line]
