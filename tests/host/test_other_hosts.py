"""Hosts of other versions than the pack was made with: what is lost is said in a line, and the rest works."""

import re
import sys

import host
import other_host
import pytest

from liveditor.liveditor_core import host_contract, host_optional, start

# Helpers that the pack can do without, one of every feature.
HELPERS = (
    "ACCELERATOR_ERROR",
    "ExecutionBlocker",
    "NodeReplace",
    "QuantizedTensor",
    "SchedulerHandler",
    "count_cache_layers",
    "load_clipvision_from_sd",
    "prepare_callback",
)


def said(server):
    """What the server's log says of the pack, without its successes."""
    assert "Traceback" not in server.log_text()
    return [
        line for line in other_host.lines(server, "LIVEditor: ") if "loaded" not in line and "source of" not in line
    ]


def test_an_older_host(tmp_path):
    with host.Server(base=other_host.base(tmp_path), tree=other_host.comfyui(tmp_path, version="0.29.3")) as server:
        assert other_host.own_nodes(server.client) == set()
        (line,) = said(server)
        assert line.endswith("LIVEditor: needs ComfyUI 0.30 or later, found 0.29.3. Update ComfyUI.")
        assert "KSampler" in server.client.get("object_info")


def test_renamed_helpers_cost_no_node(tmp_path):
    with host.Server(base=other_host.base(tmp_path), tree=other_host.comfyui(tmp_path, renamed=HELPERS)) as server:
        assert len(other_host.own_nodes(server.client)) == len(host_contract.NODES)
        assert host.saved_file(server.client.run(other_host.small_edit()), server.base).is_file()
        lines = [line for line in said(server) if "does not have" in line]
        assert len(lines) == len(host_optional.OPTIONAL) == len(HELPERS)
        for helper in HELPERS:
            (line,) = [line for line in lines if helper in line]
            assert re.search(r"LIVEditor: ComfyUI 0\.30\.0 does not have [\w.]+: .+\.$", line)


def test_what_the_model_needs_is_missing(tmp_path):
    with host.Server(base=other_host.base(tmp_path), tree=other_host.comfyui(tmp_path, renamed=["repeat_e"])) as server:
        without_a_model = {"LIVEditCompareVideos", "LIVEditInspectAttention", "LIVEditMetrics", "LIVEditPrepareModel"}
        without_a_model |= {"LIVEditLoadTextImageEncoder"}
        assert other_host.own_nodes(server.client) == without_a_model
        (line,) = said(server)
        assert "LIVEditor: ComfyUI 0.30.0 does not have comfy.ldm.wan.model.repeat_e, so there is no " in line
        for name in host_contract.MODEL_NODES:
            assert name in line
        assert "flow_unipc" in server.client.get("object_info")["KSampler"]["input"]["required"]["sampler_name"][0]


def test_a_module_moved_is_one_line_of_fair_length(monkeypatch, caplog):
    import comfy.ldm.wan

    monkeypatch.delattr(comfy.ldm.wan, "vae")
    monkeypatch.setitem(sys.modules, "comfy.ldm.wan.vae", None)
    monkeypatch.setattr(comfy.ldm.wan, "model", object())
    monkeypatch.setitem(sys.modules, "comfy.ldm.wan.model", None)
    losses = start.find_losses()
    assert losses.nodes == set(host_contract.MODEL_NODES) and len(losses.features) == 1
    error, warning = caplog.messages
    assert re.search(
        r"does not have (comfy\.ldm\.wan\.model\.[\w.]+, ){2}[\w.]+ and \d+ more, so there is no Load", error
    )
    assert "does not have comfy.ldm.wan.vae.WanVAE, comfy.ldm.wan.vae.count_cache_layers: clips" in warning


def test_what_every_node_needs_is_missing(monkeypatch):
    import folder_paths

    monkeypatch.delattr(folder_paths, "get_filename_list")
    with pytest.raises(
        ImportError, match=r"^LIVEditor: needs folder_paths.get_filename_list, which ComfyUI 0.30.0 does"
    ):
        start.refuse_to_start()


@pytest.mark.parametrize("version, fits", [("0.30.0", True), ("0.31.0rc1", True), ("1.0", True), ("0.9.12", False)])
def test_versions(monkeypatch, version, fits):
    monkeypatch.setattr("comfyui_version.__version__", version)
    if fits:
        start.refuse_to_start()
    else:
        with pytest.raises(ImportError, match=f"found {version}"):
            start.refuse_to_start()


def test_a_host_that_does_not_tell_its_version(monkeypatch):
    monkeypatch.delattr("comfyui_version.__version__")
    start.refuse_to_start()


def test_the_oldest_host_is_the_same_everywhere():
    oldest = ".".join(map(str, host_contract.OLDEST))
    assert f'requires-comfyui = ">={oldest}.0"' in (host.PACK / "pyproject.toml").read_text(encoding="utf-8")
    assert f"Needs ComfyUI {oldest} or later" in (host.PACK / "README.md").read_text(encoding="utf-8")
