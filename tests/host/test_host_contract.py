"""The contract with the host names all that the shipped code uses of it, and the host has it so."""

import comfy_library  # noqa: F401  (before anything of ComfyUI)
import host_uses
import pytest
from shipped import ROOT, own_imports

import comfy.ldm.wan.model
import comfy.model_base
import comfy.sample
import comfy.samplers
from liveditor.liveditor_core import host_contract, host_optional, start

EDIT, NODES = ROOT / "liveditor_core" / "sampling" / "edit.py", ROOT / "nodes"
NEWER = {start.name_of(line) for line in host_optional.NEWER}
# Methods with parameters of this project, which calls them itself.
OWN_PARAMETERS = {
    f"comfy.ldm.wan.model.{name}"
    for name in ("WanAttentionBlock.forward", "WanModel.forward_orig", "WanSelfAttention.forward")
}


def contract_lines():
    parts = (*host_contract.NEEDED.values(), *host_optional.OPTIONAL.values())
    return [line for part in parts for line in part]


def used_name(line):
    """The name in a line, of what is set on objects too."""
    return line.removeprefix("def ").replace("().", ".").partition("(")[0]


def differences(uses, lines):
    """What is used and not named so, and what is named so and not used."""
    used = {host_uses.written(name, use) for name, use in uses.items() if name not in NEWER}
    return {f"not named: {line}" for line in used - set(lines)} | {f"not used: {line}" for line in set(lines) - used}


@pytest.fixture(scope="module")
def uses():
    return host_uses.collect()


def test_all_that_is_used_is_named_and_nothing_else(uses):
    assert differences(uses, contract_lines()) == set()
    assert len(contract_lines()) == len(set(contract_lines()))
    assert uses.keys() >= NEWER


def test_the_host_accepts_what_is_passed(uses):
    names = [name for name in map(start.name_of, contract_lines()) if name is not None]
    assert [problem for name in names for problem in host_uses.unbound(name, uses[name])] == []
    overridden = [name for name in names if name not in OWN_PARAMETERS]
    assert [problem for name in overridden for problem in host_uses.unmet(name, uses[name])] == []


def test_the_host_has_all_of_it():
    assert start.missing_of(contract_lines()) == []


@pytest.mark.parametrize("line", [0, 40, 80, -1])
def test_a_line_too_few_is_seen(uses, line):
    lines = contract_lines()
    removed = lines.pop(line)
    assert differences(uses, lines) == {f"not named: {removed}"}


@pytest.mark.parametrize(
    "source, line",
    [
        ("import comfy.utils\ncomfy.utils.common_upscale", "comfy.utils.common_upscale"),
        ("from comfy.utils import lanczos as l\nl(1, 2, height=3)", "comfy.utils.lanczos(samples, width, *, height)"),
        ("def f(vae):\n    vae.get_sd()", "comfy.sd.VAE.get_sd()"),
        (
            "import comfy.sd\nclass C(comfy.sd.CLIP):\n    def tokenize(self, t): self.layer_idx",
            "comfy.sd.CLIP().layer_idx",
        ),
        (
            "import comfy.sd\nclass C(comfy.sd.CLIP):\n    def tokenize(self, t): pass",
            "def comfy.sd.CLIP.tokenize(text, return_word_ids, **kwargs)",
        ),
        ("import comfy.sd\nclass C(comfy.sd.CLIP):\n    def f(self): super().get_sd()", "comfy.sd.CLIP.get_sd()"),
        (
            "import comfy.sample\ncomfy.sample.prepare_noise(1, 2, noise_inds=3)",
            "comfy.sample.prepare_noise(latent_image, seed, *, noise_inds)",
        ),
    ],
)
def test_a_new_use_is_seen(source, line):
    assert f"not named: {line}" in differences(host_uses.collect({EDIT: source}), contract_lines())


def test_a_line_too_many_is_seen(uses):
    assert differences(uses, [*contract_lines(), "comfy.utils.lanczos"]) == {"not used: comfy.utils.lanczos"}


def test_what_the_host_renames_is_seen(uses, monkeypatch):
    monkeypatch.delattr(comfy.ldm.wan.model, "repeat_e")
    monkeypatch.delattr(comfy.model_base.BaseModel, "get_dtype_inference")
    assert start.missing_of(contract_lines()) == [
        "comfy.ldm.wan.model.repeat_e",
        "comfy.model_base.WAN21.get_dtype_inference",
    ]
    assert len(differences(uses, contract_lines())) == 4


def test_other_parameters_are_seen(uses, monkeypatch):
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda latent, seed, generator: None)
    monkeypatch.setattr(comfy.model_base.WAN21, "memory_required", lambda self, input_shape, conds, batch: None)
    found = differences(uses, contract_lines())
    assert "not named: comfy.sample.prepare_noise(latent, seed)" in found
    assert "not named: def comfy.model_base.WAN21.memory_required(input_shape, conds, batch)" in found
    assert list(host_uses.unbound("comfy.sample.prepare_noise", uses["comfy.sample.prepare_noise"]))
    name = "comfy.model_base.WAN21.memory_required"
    assert list(host_uses.unmet(name, uses[name]))


@pytest.mark.parametrize("name", host_contract.NODES)
def test_no_node_is_offered_without_what_it_needs(uses, name):
    """By the files that run for it: what they use is optional, or among what takes the node away when it is missing."""
    (module,) = [path for path in NODES.glob("*.py") if f'\nNAME = "{name}"\n' in path.read_text(encoding="utf-8")]
    read = own_imports(module)
    others = [line for nodes, part in host_contract.NEEDED.items() if name not in nodes for line in part]
    assert [line for line in others if uses[used_name(line)].files & read] == []
