"""The branch of the main template for LoRA files that make few steps enough."""

import json

import host
import tiny_models
import torch
from safetensors.torch import save_file

TEMPLATE = host.PACK / "workflows" / "liveditor_edit.json"


def test_the_branch_is_out_of_the_way_until_it_is_wanted(client, edit_prompt):
    assert not host.nodes_of(edit_prompt, "LIVEditLoadLoRA")
    loader, settings = (host.key_of(edit_prompt, name) for name in ("LoadLIVEditor", "SparseAttentionSettings"))
    assert edit_prompt[settings]["inputs"]["model"] == [loader, 0]


def test_the_branch_runs_with_a_file_for_few_steps(client, edit_prompt):
    folder = host.RUN / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    luck = torch.Generator().manual_seed(1)
    shapes = {"A": (4, 256), "B": (256, 4)}
    name = "diffusion_model.blocks.{}.self_attn.q.lora_{}.weight"
    blocks = range(tiny_models.LAYERS)
    lora = {name.format(i, part): torch.randn(shapes[part], generator=luck) for i in blocks for part in shapes}
    save_file(lora, folder / "few_steps.safetensors")

    workflow = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    (branch,) = (node for node in workflow["nodes"] if node["type"] == "LIVEditLoadLoRA")
    branch["mode"], branch["widgets_values"][0] = 0, "few_steps.safetensors"
    prompt = client.to_api(workflow)
    for node in edit_prompt.values():  # the tiny model and sizes of the fixture
        kept = {key: value for key, value in node["inputs"].items() if not isinstance(value, list)}
        if host.nodes_of(prompt, node["class_type"]) and node["class_type"] != "CLIPTextEncode":
            host.set_inputs(prompt, node["class_type"], **kept)
    host.remove(prompt, "LIVEditCompareVideos")
    host.set_inputs(prompt, "LIVEditSampler", steps=4, cfg=1)
    prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [host.key_of(prompt, "LIVEditSampler"), 1]}}
    text = client.run(prompt)["show"]["text"][0]
    assert "4 steps, 4 model calls" in text
    assert f"LoRA: few_steps.safetensors at 1: {len(lora)} of {len(lora)} keys fit" in text
