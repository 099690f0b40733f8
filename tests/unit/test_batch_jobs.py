"""What a batch is asked to do: lists of jobs, where a job's words and settings go, and what makes it the same job."""

import json
import os
import random

import pytest

from liveditor.batch.errors import BatchError, JobFailed
from liveditor.batch.graph import DEFAULT, REPORT, fill_in, instruction_of, prompt_of, read_graph, refuse_wrong
from liveditor.batch.jobs import Job, key_of, left_out, name_of, read_jobs
from liveditor.batch.server import ComfyUI


@pytest.fixture
def graph():
    return read_graph(DEFAULT)


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("b.mp4", "a.MOV", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_and_one_instruction(clips):
    jobs = read_jobs(clips, "make it snow")
    assert [(job.clip.name, job.instruction, job.inputs) for job in jobs] == [
        ("a.MOV", "make it snow", {}),
        ("b.mp4", "make it snow", {}),
    ]


def test_a_table(clips):
    table = clips / "jobs.csv"
    table.write_text(
        "\ufeffvideo,instruction,LIVEditSampler.seed,EncodeSourceVideo.size,DecodeVideo.original_size\n"
        'b.mp4,"snow, please",7,auto 480p,true\n'
        "a.MOV,,,,\n",
        encoding="utf-8",
    )
    first, second = read_jobs(table, "rain")
    assert first == Job(
        clips / "b.mp4",
        "snow, please",
        {"LIVEditSampler.seed": 7, "EncodeSourceVideo.size": "auto 480p", "DecodeVideo.original_size": True},
    )
    assert second == Job(clips / "a.MOV", "rain", {})


def test_a_table_as_other_programs_write_it(clips):
    table = clips / "jobs.csv"
    table.write_text("video; instruction; LIVEditSampler.seed\nb.mp4;007;7\n", encoding="utf-8")
    assert read_jobs(table, None) == [Job(clips / "b.mp4", "007", {"LIVEditSampler.seed": 7})]
    table.write_bytes("video,instruction\nb.mp4,Stra\xdfe\n".encode("latin-1"))
    with pytest.raises(BatchError, match="must be in UTF-8"):
        read_jobs(table, None)


@pytest.mark.parametrize(
    "text",
    [
        "Video,INSTRUCTION,LIVEditSampler.seed\nb.mp4,snow,7\n",
        "video\tinstruction\tLIVEditSampler.seed\nb.mp4\tsnow\t7\n",
        "video;instruction;LIVEditSampler.seed\n;;\n b.mp4 ; snow ; 7 \n;;\n\n",
        "video,instruction,LIVEditSampler.seed,,\nb.mp4,snow,7,,\n,,,,\n",
    ],
)
def test_a_table_as_people_write_it(clips, text):
    (clips / "jobs.csv").write_text(text, encoding="utf-8")
    assert read_jobs(clips / "jobs.csv", None) == [Job(clips / "b.mp4", "snow", {"LIVEditSampler.seed": 7})]


def test_a_path_from_the_user_s_own_folder(clips, monkeypatch):
    monkeypatch.setenv("HOME", str(clips))
    monkeypatch.setenv("USERPROFILE", str(clips))
    (clips / "jobs.csv").write_text("video,instruction\n~/b.mp4,snow\n", encoding="utf-8")
    assert read_jobs(clips / "jobs.csv", None) == [Job(clips / "b.mp4", "snow", {})]
    (clips / "~b.mp4").write_bytes(b"a draft")
    (clips / "jobs.csv").write_text("video,instruction\n~b.mp4,snow\n", encoding="utf-8")
    assert read_jobs(clips / "jobs.csv", None) == [Job(clips / "~b.mp4", "snow", {})]


def test_what_of_a_folder_is_none_of_its_clips(clips):
    (clips / "._b.mp4").write_bytes(b"of a Mac")
    (clips / "more").mkdir()
    assert len(read_jobs(clips, "snow")) == 2
    assert left_out(clips) == ["more/", "notes.txt"] and left_out(clips / "jobs.csv") == []
    with pytest.raises(BatchError, match="no videos in it. Folders in it are not looked into: clips"):
        read_jobs(clips.parent, "snow")


@pytest.mark.skipif(os.name == "nt", reason="names there are always Unicode")
def test_a_name_that_no_text_can_hold(clips):
    with open(os.fsencode(clips) + b"/lat\xe9n.mp4", "wb"):
        pass
    with pytest.raises(BatchError, match=r"lat.*n\.mp4' is not in UTF-8. Rename it."):
        read_jobs(clips, "snow")


def test_lines_of_json(clips):
    lines = clips / "jobs.jsonl"
    row = {"video": str(clips / "b.mp4"), "instruction": "make it snow", "LIVEditSampler.cfg": 2.0}
    lines.write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    assert read_jobs(lines, None) == [Job(clips / "b.mp4", "make it snow", {"LIVEditSampler.cfg": 2.0})]


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("jobs.csv", "video,instruction\nb.mp4,\n", "line 2: has no instruction"),
        ("jobs.csv", "video,instruction\nnone.mp4,snow\n", "line 2: there is no file"),
        ("jobs.csv", "clip,instruction\nb.mp4,snow\n", "line 2: names no video"),
        ("jobs.csv", "video,instruction\nb.mp4,snow,more\n", "line 2: has more cells"),
        ("jobs.csv", "video,instruction\n", "there are no jobs"),
        ("jobs.csv", "b.mp4,snow\n", "The first line of a .csv names the columns: video,instruction"),
        ("jobs.csv", "video,instruction\nb.mp4,  \n", "line 2: has no instruction"),
        ("jobs.csv", "video,prompt\nb.mp4,snow\n", "line 2: the column prompt is none of video, instruction"),
        ("jobs.csv", "video,instruction,Instruction\nb.mp4,a,b\n", "line 1: names the column instruction twice"),
        ("jobs.jsonl", '{"video": "b.mp4", "instruction": "snow", "notes": ""}', "line 1: the column notes is none"),
        ("jobs.jsonl", '{"video": "b.mp4", "instruction": "snow"}\n[1]\n', "line 2: must be an object"),
        ("jobs.jsonl", "{\n", "line 1: is not JSON"),
        ("jobs.csv", 'video,instruction\nb.mp4,"snow\na.MOV,rain\n', "a quotation mark is not closed"),
        ("jobs.csv", 'video,instruction\nb.mp4,"snow\na.MOV,"rain"\n', "a quotation mark is not closed"),
        ("jobs.csv", f'video,instruction\nb.mp4,"{"a.MOV,rain" * 20000}', "a quotation mark is not closed"),
        ("jobs.csv", "video;instruction\nb.mp4;snow;rain\n", "A text with ; in it must stand in quotes"),
        ("jobs.txt", "b.mp4", "must be a folder, .csv or .jsonl"),
    ],
)
def test_what_is_wrong_is_named(clips, name, text, said):
    (clips / name).write_text(text, encoding="utf-8")
    with pytest.raises(BatchError, match=said):
        read_jobs(clips / name, None)


def test_folders_that_cannot_be_done(clips, tmp_path):
    for words in (None, "", "  "):
        with pytest.raises(BatchError, match="needs an instruction"):
            read_jobs(clips, words)
    with pytest.raises(BatchError, match="no videos"):
        read_jobs(tmp_path, "snow")
    with pytest.raises(BatchError, match="no such file or folder"):
        read_jobs(tmp_path / "none", "snow")


def test_words_and_settings_go_into_the_graph(graph):
    filled = fill_in(graph, "make it snow", {"LIVEditSampler.seed": 7, "#negative.text": "rain"})
    node, name = instruction_of(filled)
    assert node["inputs"][name] == "make it snow" and filled["sampler"]["inputs"]["seed"] == 7
    assert filled["negative"]["inputs"]["text"] == "rain"
    assert graph["sampler"]["inputs"]["seed"] == 42, "the graph itself stays as it was"
    prompt = prompt_of(filled, "clip.mp4", "name")
    assert prompt["video"]["inputs"]["file"] == "clip.mp4" and prompt["save"]["inputs"]["filename_prefix"] == "name"
    assert prompt[REPORT]["inputs"]["source"] == ["sampler", 1]


@pytest.mark.parametrize(
    "where, said",
    [
        ("LIVEditSampler", "must be Node.input"),
        ("KSampler.seed", "no node KSampler"),
        ("CLIPTextEncode.text", "2 nodes CLIPTextEncode"),
        ("#none.text", "no node none"),
        ("LIVEditSampler.model", "is connected"),
    ],
)
def test_inputs_that_there_are_not(graph, where, said):
    with pytest.raises(BatchError, match=said):
        fill_in(graph, "", {where: 1})


NODES = {
    "LIVEditSampler": {
        "input": {
            "required": {"steps": ["INT", {}], "cfg": ["FLOAT", {}], "model": ["MODEL"], "shift": [["a", "b"]]},
            "optional": {"window": ["COMBO", {"options": ["a"]}], "keep": ["BOOLEAN", {}], "text": ["STRING", {}]},
        }
    }
}


@pytest.mark.parametrize(
    "name, value",
    [
        ("steps", 7),
        ("steps", 7.0),
        ("cfg", 1),
        ("cfg", 1.5),
        ("keep", False),
        ("text", "no"),
        ("text", 7),
        ("shift", 1),
    ],
)
def test_values_of_the_kind_that_a_node_takes(graph, name, value):
    for where in (f"LIVEditSampler.{name}", f"#sampler.{name}"):
        graph["sampler"]["inputs"][name] = value
        refuse_wrong(graph, (where,), NODES)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("stps", 7, "LIVEditSampler has no input stps; it has steps, cfg, model, shift, window, keep, text"),
        ("steps", 1.5, "must be a whole number, got 1.5"),
        ("steps", "seven", "must be a whole number, got seven"),
        ("steps", True, "must be a whole number, got True"),
        ("cfg", float("nan"), "must be a number, with a point as in 1.5, got nan"),
        ("cfg", "1,5", "must be a number, with a point as in 1.5, got 1,5"),
        ("keep", "no", "must be true or false, got no"),
        ("keep", 2, "must be true or false, got 2"),
        ("text", ["a"], r"must be text, got \['a'\]"),
    ],
)
def test_values_that_a_node_would_take_for_others(graph, name, value, said):
    for where in (f"LIVEditSampler.{name}", f"#sampler.{name}"):
        graph["sampler"]["inputs"][name] = value
        with pytest.raises(JobFailed, match=f"{where}: {said}"):
            refuse_wrong(graph, (where,), NODES)


def test_a_node_that_the_server_says_nothing_of(graph):
    graph["other"] = {"class_type": "SomeNode", "inputs": {"value": "x"}}
    refuse_wrong(graph, ("SomeNode.value",), NODES)


def test_the_instruction_is_found_behind_other_nodes(graph):
    graph["between"] = {"class_type": "EncodeSourceVideo", "inputs": {"positive": ["instruction", 0]}}
    graph["sampler"]["inputs"]["positive"] = ["between", 1]
    assert instruction_of(graph)[0] is graph["instruction"]
    graph["instruction"]["class_type"] = "SomeOtherEncoder"
    with pytest.raises(BatchError, match="no node that is known to hold an instruction"):
        instruction_of(graph)


def test_a_timeline_takes_the_instruction(graph):
    """One without a time holds from the beginning on."""
    graph["instruction"] = {"class_type": "LIVEditTimeline", "inputs": {"clip": ["load", 1], "timeline": "0:00 fog"}}
    for words, written in (
        ("make it  snow", "0:00 make it snow"),
        ("0:00 snow\n0:02 rain", "0:00 snow\n0:02 rain"),
        ("0 - snow", "0 - snow"),
        ("007 walks in", "0:00 007 walks in"),
    ):
        assert fill_in(graph, words, {})["instruction"]["inputs"] == {"clip": ["load", 1], "timeline": written}


def test_an_instruction_in_a_text_node_before(graph):
    graph["words"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "fog"}}
    graph["instruction"]["inputs"]["text"] = ["words", 0]
    filled = fill_in(graph, "make it snow", {})
    assert filled["words"]["inputs"]["value"] == "make it snow"
    assert filled["instruction"]["inputs"]["text"] == ["words", 0]
    graph["words"] = {"class_type": "StringConcatenate", "inputs": {"string_a": "fog", "string_b": ", at night"}}
    with pytest.raises(BatchError, match="typed into it or into one text node before it"):
        instruction_of(graph)
    for inputs in ({"value": ["words", 0]}, {"path": "prompts/night.txt"}, {"images": ["video", 0], "seed": 1}, {}):
        graph["words"]["inputs"] = inputs
        with pytest.raises(BatchError, match="no node that is known"):
            instruction_of(graph)


def test_of_several_saved_videos_the_edit_counts(graph):
    graph["compared"] = {"class_type": "LIVEditCompareVideos", "inputs": {"before": ["source", 0]}}
    graph["second"] = {"class_type": "SaveVideo", "inputs": {"video": ["compared", 0], "filename_prefix": "compared"}}
    prompt = prompt_of(graph, "clip.mp4", "name")
    assert prompt["save"]["inputs"]["filename_prefix"] == "name"
    assert prompt["second"]["inputs"]["filename_prefix"] == "compared"
    graph["second"]["inputs"]["video"] = graph["save"]["inputs"]["video"]
    with pytest.raises(BatchError, match="2 nodes SaveVideo .* leave one and mute the others"):
        prompt_of(graph, "clip.mp4", "name")


def test_names_of_inputs_with_a_point_in_them(graph):
    graph["resize"] = {"class_type": "ResizeImageMaskNode", "inputs": {"resize_type": "scale", "resize_type.width": 8}}
    nodes = {"ResizeImageMaskNode": {"input": {"required": {"resize_type": ["COMFY_DYNAMICCOMBO_V3", {}]}}}}
    for where in ("ResizeImageMaskNode.resize_type.width", "#resize.resize_type.width"):
        filled = fill_in(graph, "", {where: 16})
        assert filled["resize"]["inputs"] == {"resize_type": "scale", "resize_type.width": 16}
        refuse_wrong(filled, (where,), nodes)


def test_half_a_character_is_none(clips):
    (clips / "jobs.jsonl").write_text('{"video": "b.mp4", "instruction": "snow \\ud83d now"}', encoding="utf-8")
    assert read_jobs(clips / "jobs.jsonl", None)[0].instruction == "snow ? now"


def test_a_link_to_a_node_that_is_gone(tmp_path, graph):
    graph["sampler"]["inputs"]["positive"] = ["gone", 0]
    (tmp_path / "workflow.json").write_text("\ufeff" + json.dumps(graph), encoding="utf-8")
    with pytest.raises(BatchError, match="positive prompt comes from no node"):
        read_graph(tmp_path / "workflow.json")
    del graph["negative"]["inputs"]
    graph["sampler"]["inputs"]["positive"] = ["instruction", 0]
    (tmp_path / "workflow.json").write_text(json.dumps(graph), encoding="utf-8")
    assert read_graph(tmp_path / "workflow.json")["negative"]["inputs"] == {}


def test_a_choice_in_a_text_is_always_the_same(tmp_path, graph, monkeypatch):
    """Else a second start would know no job of the first."""
    import comfy_cli.workflow_to_api

    def convert(canvas, _):
        return graph | {"drawn": {"class_type": "Note", "inputs": {"text": random.random()}}}

    monkeypatch.setattr(comfy_cli.workflow_to_api, "convert_ui_to_api", convert)
    drawn = set()
    for name, text in (("one", '{"nodes": []}'), ("copy", '{"nodes": []}'), ("other", '{"nodes": [1]}')):
        (tmp_path / name).write_text(text)
        random.seed()
        before = random.getstate()
        drawn.add(read_graph(tmp_path / name, dict)["drawn"]["inputs"]["text"])
        assert random.getstate() == before
    assert len(drawn) == 2


@pytest.mark.parametrize("text", ["{}", "[]", '{"1": {}}', "no json"])
def test_files_that_are_no_workflow(tmp_path, text):
    (tmp_path / "workflow.json").write_text(text)
    with pytest.raises(BatchError):
        read_graph(tmp_path / "workflow.json")


def test_the_same_job_has_the_same_key_and_any_other_another(graph, tmp_path):
    weights = tmp_path / "diffusion_models" / "liveditor_14b_bf16.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"clip")
    job = Job(clip, "make it snow", {"LIVEditSampler.seed": 1})

    def key(job=job, graph=graph, digest="clip"):
        return key_of(job, graph, digest, [weights.parent])

    first = key()
    assert key() == first and key(job._replace(clip=tmp_path / "renamed.mp4")) == first
    other = fill_in(graph, "", {"LIVEditSampler.steps": 8})
    others = [
        key(digest="another clip"),
        key(job._replace(instruction="make it rain")),
        key(job._replace(inputs={"LIVEditSampler.seed": 2})),
        key(graph=other),
    ]
    os.utime(weights, (0, 0))
    others.append(key())
    assert len({first, *others}) == 6
    assert name_of(job, first) == f"clip--make-it-snow--{first[:8]}"
    assert name_of(job._replace(instruction="/?*"), first) == f"clip--{first[:8]}"
    snow = "\u96ea"
    long = name_of(Job(tmp_path / f"{snow * 70}.mp4", snow * 300, {}), first)
    assert len(f"{long}.mp4.part".encode()) < 200 and long.endswith(first[:8])


def test_weights_are_found_where_comfyui_finds_them(tmp_path):
    code, more = tmp_path / "ComfyUI", tmp_path / "disk"
    for folder in (code / "models" / "vae", more / "unet", more / "diffusion", tmp_path / "text"):
        folder.mkdir(parents=True)
    (code / "extra_model_paths.yaml").write_text(
        f"a:\n  base_path: {more}\n  is_default: true\n  diffusion_models: |\n    unet\n    diffusion\nb:\n"
    )
    (tmp_path / "other.yaml").write_text("c:\n  text_encoders: text\n  vae: nowhere\n")
    comfyui = ComfyUI(code, arguments=("--extra-model-paths-config", str(tmp_path / "other.yaml")))
    assert comfyui.model_folders() == [code / "models" / "vae", more / "unet", more / "diffusion", tmp_path / "text"]
    (code / "extra_model_paths.yaml").write_text("just words")
    with pytest.raises(BatchError, match="extra_model_paths.yaml: cannot be read"):
        comfyui.model_folders()
