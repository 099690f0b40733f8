"""LIVEdit Timeline in a real server, and what becomes of its conditioning without LIVEdit Sampler."""

import host
import pytest
import torch
from host import key_of
from sampling import sample

import nodes
from liveditor.batch.graph import WORDS
from liveditor.liveditor_core.model.text_encoder import load_small_text_encoder
from liveditor.liveditor_core.sampling.instructions import SPAN_KEY, Span
from liveditor.nodes.timeline import EXAMPLE, LIVEditTimeline
from liveditor.training.edits import PHRASES

TIMED = {SPAN_KEY: Span(0, None, 0.5, "make it night", 1)}


@pytest.fixture
def clip(library):
    (path,) = (host.PACK / "models" / "text_encoders").glob("*.safetensors")
    return load_small_text_encoder(str(path))


def test_texts_are_encoded_as_by_the_host(clip):
    """Bit for bit, with brackets as weights."""
    import nodes as host_nodes

    texts = ["make it night", "make it (much:1.5) brighter"]
    conditioning, report = LIVEditTimeline.execute(clip, f"0:00 {texts[0]}\n0:02.5 {texts[1]}", 0.5).args
    assert len(conditioning) == 2 and report.endswith("0:02.50 to the end make it (much:1.5) brighter")
    for (tensor, values), text in zip(conditioning, texts, strict=True):
        ((expected, others),) = host_nodes.CLIPTextEncode().encode(clip, text)[0]
        assert torch.equal(tensor, expected) and values.keys() - {SPAN_KEY} == others.keys()
        assert values[SPAN_KEY].text == text


def test_the_small_model_knows_the_example():
    asked = [line.split(" ", 1)[1] for line in EXAMPLE.splitlines()]
    assert all(any(text in phrases for phrases in PHRASES.values()) for text in asked) and len(asked) == 2


def with_timeline(prompt, text, source=True):
    """A prompt whose only output is the timeline's report."""
    inputs = {"clip": [key_of(prompt, "LoadLIVEditor"), 1], "timeline": text, "transition": 0.5}
    if source:
        inputs["source"] = [key_of(prompt, "EncodeSourceVideo"), 0]
    host.remove(prompt, "LIVEditSampler")
    prompt["timeline"] = {"class_type": "LIVEditTimeline", "inputs": inputs, "_meta": {"title": "timeline"}}
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["timeline", 1]}}
    return prompt


def test_the_report_says_when_what_holds(client, edit_prompt):
    prompt = with_timeline(edit_prompt, "0:00 make it night\n0:00.25 invert the colours")
    assert client.run(prompt)["report"]["text"] == [
        "0:00.00 to 0:00.25 make it night\n0:00.25 to 0:00.56 invert the colours"  # 9 frames at 16 a second
    ]


@pytest.mark.parametrize(
    "text, source, message",
    [
        ("0:00 one\nmake it night", False, "LIVEdit Timeline: line 2: must begin with a time"),
        ("0:00 one\n0:05 two", True, "LIVEdit Timeline: line 2: must begin before the edit ends, at 0:00.56"),
    ],
)
def test_wrong_lines_are_named(client, edit_prompt, text, source, message):
    with pytest.raises(host.WorkflowFailed, match=message):
        client.run(with_timeline(edit_prompt, text, source))


def test_a_stock_sampler_refuses_times(tiny_model, conditioning, latent):
    positive, negative = conditioning
    timed = [[tensor, values | TIMED] for tensor, values in positive]
    with pytest.raises(ValueError, match="LIVEditor: the positive .* from LIVEdit Timeline.* use LIVEdit Sampler"):
        sample(tiny_model, [timed, negative], latent)


def test_a_mask_of_the_user_s_does_not_make_it_fit(tiny_model, conditioning, latent):
    positive, negative = conditioning
    timed = [[tensor, values | TIMED | {"mask": torch.ones(1, *latent.shape[3:])}] for tensor, values in positive]
    with pytest.raises(ValueError, match="use LIVEdit Sampler"):
        sample(tiny_model, [timed, negative], latent)


def test_a_batch_writes_instructions_where_nodes_take_them():
    schema = LIVEditTimeline.define_schema()
    assert WORDS[schema.node_id] in [each.id for each in schema.inputs]
    assert WORDS["CLIPTextEncode"] in nodes.CLIPTextEncode.INPUT_TYPES()["required"]
