"""The pack's own models/ as users leave it behind: the nodes are there, and nothing but models is offered."""

import asyncio
import copy
import shutil

import host
import other_host
import pytest

import folder_paths
from liveditor import nodes
from liveditor.liveditor_core import host_contract

NOT_NEEDED = shutil.ignore_patterns(".*", "__pycache__", "tests", "training", "models")


def deleted(models):
    pass


def littered(models):
    shutil.copytree(host.PACK / "models", models)
    (models / ".DS_Store").touch()
    (models / "notes.txt").touch()
    (models / "my checkpoints").mkdir()
    shutil.rmtree(models / "text_encoders")
    (models / "text_encoders").touch()


@pytest.mark.parametrize("leave, found", [(deleted, 0), (littered, 1)])
def test_the_nodes_are_there(tmp_path, leave, found):
    base = other_host.base(tmp_path, packs=())
    pack = base / "custom_nodes" / other_host.PACK_FOLDER
    shutil.copytree(host.PACK, pack, ignore=NOT_NEEDED)
    leave(pack / "models")
    with host.Server(base=base) as server:
        assert len(other_host.own_nodes(server.client)) == len(host_contract.NODES), server.log_text()[-2000:]
        assert len(server.client.get("models/diffusion_models")) == found
        assert server.client.get("models/text_encoders") == []
        assert "my checkpoints" not in server.client.get("models")
        assert not other_host.lines(server, "Traceback") and not other_host.lines(server, "Error")


def test_a_file_in_its_place(tmp_path, monkeypatch):
    places = copy.deepcopy(folder_paths.folder_names_and_paths)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", places)
    monkeypatch.setattr(nodes, "MODELS", tmp_path / "models")
    (tmp_path / "models").touch()
    before = copy.deepcopy(places)
    asyncio.run(nodes.LIVEditorExtension().on_load())
    assert places == before
