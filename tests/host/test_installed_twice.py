"""The pack twice in custom_nodes, as git and the manager name its folder: one copy works, one message names both."""

import host
import other_host
import pytest

from liveditor.liveditor_core import host_contract

FOLDERS = {"ComfyUI-LIVEditor", "liveditor"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = other_host.base(tmp_path_factory.mktemp("twice"), packs=sorted(FOLDERS))
    with host.Server(base=base) as running:
        yield running


@pytest.fixture(scope="module")
def working(server):
    """The folder of the copy that offers nodes."""
    (folder,) = [folder for folder in FOLDERS if other_host.own_nodes(server.client, folder)]
    assert len(other_host.own_nodes(server.client, folder)) == len(host_contract.NODES)
    return folder


def test_one_copy_edits(server, working):
    assert host.saved_file(server.client.run(other_host.small_edit()), server.base).is_file()


def test_one_message_names_both(server, working):
    (line,) = other_host.lines(server, "installed twice")
    (other,) = FOLDERS - {working}
    places = [str(server.base / "custom_nodes" / folder) for folder in (working, other)]
    assert f"LIVEditor: is installed twice, in {places[0]} and in {places[1]}. The first is used." in line
    assert "Traceback" not in server.log_text()


def test_one_copy_is_in_the_browser(server, working):
    scripts = [path for path in server.client.get("extensions") if "liveditor" in path.lower()]
    assert scripts and all(path.startswith(f"/extensions/{working}/") for path in scripts)
