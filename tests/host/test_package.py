"""The pack as a package: what importing it does, and what ComfyUI's own validators say of it."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import host
import pytest
from PIL import Image

from comfy_api.latest import io
from liveditor.liveditor_core import host_contract
from liveditor.nodes import LIVEditorExtension

COMFY, COMFY_TEST = (str(Path(sys.executable).with_name(name)) for name in ("comfy", "comfy-test"))
TEMPLATES = sorted((host.PACK / "workflows").glob("*.json"))
BLUEPRINTS = sorted((host.PACK / "subgraphs").glob("*.json"))


def test_import_is_quick_and_changes_nothing_of_the_host():
    out = subprocess.check_output(
        [sys.executable, "-B", str(host.PACK / "tests/support/import_probe.py"), str(host.PACK)], text=True
    )
    result = json.loads(out.strip().splitlines()[-1])
    assert result["nodes"] == len(host_contract.NODES)
    assert result["seconds"] < 0.5
    assert result["events"] == [] and result["changed"] == [] and result["optional"] == []


def test_a_host_that_cannot_replace_nodes_has_them_all_the_same(monkeypatch):
    monkeypatch.delattr(io, "NodeReplace")
    extension = LIVEditorExtension()
    asyncio.run(extension.on_load())
    assert len(asyncio.run(extension.get_node_list())) == len(host_contract.NODES)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_workflow_validates(client, path, tmp_path):
    info = client.get("object_info")
    # The models that the workflow names are not on this machine; everything else must be right.
    for loader, name in (("LoadLIVEditor", "checkpoint"), ("UNETLoader", "unet_name")):
        entry = info[loader]["input"]["required"][name]
        (entry[0] if isinstance(entry[0], list) else entry[1]["options"]).append("liveditor_14b_bf16.safetensors")
    for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
        for entry in info.get(node["type"], {"input": {"required": {}}})["input"]["required"].values():
            options = entry[0] if isinstance(entry[0], list) else dict(*entry[1:]).get("options")
            if options is not None:
                options.extend(model["name"] for model in node["properties"].get("models", []))
    (tmp_path / "object_info.json").write_text(json.dumps(info))
    run = subprocess.run(
        [
            COMFY,
            "--json",
            "workflow",
            "validate",
            "--workflow",
            str(path),
            "--input",
            str(tmp_path / "object_info.json"),
        ],
        capture_output=True,
        text=True,
    )
    answer = json.loads(run.stdout.strip().splitlines()[-1])
    assert answer["ok"] and not answer["data"].get("warnings"), answer


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_says_what_to_choose(path):
    graph = json.loads(path.read_text(encoding="utf-8"))
    titles = [node.get("title") or node["type"] for node in graph["nodes"]]
    notes = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    (choose,) = [note.split("\n\n")[1] for note in notes if "**Choose**" in note]
    assert choose.startswith("**Choose** a clip in *Video to edit*") and "Video to edit" in titles


def graphs_of(path):
    """The graph of a file and those within it, links as dicts."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    names = "id", "origin_id", "origin_slot", "target_id", "target_slot"
    for graph in (whole, *whole.get("definitions", {}).get("subgraphs", ())):
        links = [link if isinstance(link, dict) else dict(zip(names, link, strict=False)) for link in graph["links"]]
        yield graph, {link["id"]: link for link in links}


@pytest.mark.parametrize("path", [*TEMPLATES, *BLUEPRINTS], ids=lambda path: path.stem)
def test_links_lead_where_their_sockets_say(path):
    """A graph that is opened goes by the sockets, a blueprint that is placed by the links."""
    for graph, links in graphs_of(path):
        for node in graph["nodes"]:
            ends = [("target", slot, [socket.get("link")]) for slot, socket in enumerate(node["inputs"])]
            ends += [("origin", slot, socket.get("links") or ()) for slot, socket in enumerate(node["outputs"])]
            for end, slot, ids in ends:
                for link in (links[i] for i in ids if i is not None):
                    assert (link[f"{end}_id"], link[f"{end}_slot"]) == (node["id"], slot), (node["type"], slot, link)


def test_node_package_validates():
    run = subprocess.run([COMFY, "node", "validate"], cwd=host.PACK, capture_output=True, text=True)
    assert run.returncode == 0 and "warning" not in (run.stdout + run.stderr).lower(), run.stdout + run.stderr


@pytest.mark.parametrize("key, largest, shape", [("Icon", (400, 400), 1), ("Banner", (2100, 900), 21 / 9)])
def test_the_pictures_of_the_registry_are_there(key, largest, shape):
    project = dict(re.findall(r'^(\w+) = "(.*)"$', (host.PACK / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    owner = project["Repository"].removeprefix("https://github.com/")
    begin = f"https://raw.githubusercontent.com/{owner}/main/"
    url = project[key]
    assert url.startswith(begin)
    with Image.open(host.PACK / url.removeprefix(begin)) as picture:
        width, height = picture.size
    assert width <= largest[0] and height <= largest[1] and width / height == shape


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """What users get: the package that comfy-cli makes of the repository, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(
        host.PACK, folder / "repository", ignore=shutil.ignore_patterns(".git", ".liveditor", ".*_cache", "__pycache__")
    )
    run = subprocess.run(
        [COMFY, "--skip-prompt", "node", "pack"], cwd=folder / "repository", capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    with zipfile.ZipFile(folder / "repository" / "node.zip") as file:
        assert sum(entry.compress_size for entry in file.infolist()) < 30_000_000
        file.extractall(folder / "ComfyUI-LIVEditor")
    return folder / "ComfyUI-LIVEditor"


def test_lint_is_clean(package):
    run = subprocess.run([COMFY_TEST, "lint", "--strict", str(package)], capture_output=True, text=True)
    assert run.returncode == 0 and "0 error(s), 0 warning(s)" in run.stdout + run.stderr, run.stdout + run.stderr


def test_the_package_holds_what_users_need_and_no_more(package):
    names = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {name.split("/")[0] for name in names} == {
        "__init__.py",
        "nodes",
        "liveditor_core",
        "batch",
        "kernels",
        "workflows",
        "subgraphs",
        "web",
        "locales",
        "models",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        ".comfyignore",
    }
    assert not [name for name in names if "test" in name or name.startswith("workflows/api")]
    for folder, pattern in (
        ("nodes", "*.py"),
        ("web", "docs/*/*"),
        ("workflows", "*.j*"),
        ("subgraphs", "*.json"),
        ("models", "*/*"),
        ("locales", "*/*"),
    ):
        assert {path.relative_to(host.PACK).as_posix() for path in (host.PACK / folder).glob(pattern)} <= names
