"""A workflow as the server takes it, and where a job's clip, words and settings go in it."""

import json
import math
import random
import re
from pathlib import Path

from .errors import BatchError, JobFailed

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = Path(__file__).with_name("workflow.json")  # the 14B with the released settings, clips of any length
REPORT = "liveditor_batch_report"  # id of the node that hands the sampler's report out
LOADER, SAMPLER, SAVER = "LoadVideo", "LIVEditSampler", "SaveVideo"
DECODER = "DecodeVideo"
LOADED = LOADER, "file"  # the input that takes a job's clip
TEXTS = "text", "value", "string"  # what nodes that hold a text call it
TIMELINE = "LIVEditTimeline"
WORDS = {"CLIPTextEncode": "text", TIMELINE: "timeline"}  # by class: the input that holds the instruction


def read_graph(path: Path, object_info=None) -> dict:
    """A workflow file in API format; one in UI format is converted by comfy-cli.

    Args:
        object_info: function that gives what the server says of its nodes; only needed for UI format.

    Raises:
        BatchError: it is no workflow, or comfy-cli is not installed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        graph = json.loads(text)
    except (OSError, ValueError) as error:
        raise BatchError(f"{path}: cannot be read as a workflow: {error}") from None
    if isinstance(graph, dict) and "nodes" in graph:
        try:
            from comfy_cli.workflow_to_api import convert_ui_to_api
        except ImportError:
            raise BatchError(
                f"{path}: is a workflow of the canvas, which takes the package comfy-cli (pip install comfy-cli). Or "
                "save it by File, Export (API)."
            ) from None
        # It draws for {night|fog} in a text: always the same for the same file, or no job would be found again.
        state = random.getstate()
        random.seed(text)
        try:
            graph = convert_ui_to_api(graph, object_info())
        finally:
            random.setstate(state)
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.setdefault("inputs", {}), dict)
        for node in graph.values()
    ):
        raise BatchError(f"{path}: is no workflow. Save it in ComfyUI by File, Export (API).")
    for wanted in (LOADER, SAMPLER):
        _only(graph, wanted)
    saver_of(graph)
    instruction_of(graph)
    return graph


def fill_in(graph: dict, instruction: str, inputs: dict) -> dict:
    """A copy of a graph with a job's words and settings.

    Args:
        instruction: "" for that of the graph.
        inputs: values by `Class.input`, or `#id.input` where there are several nodes of a class.

    Raises:
        BatchError: there is no such node or input.
    """
    graph = json.loads(json.dumps(graph))
    if instruction:
        node, name = instruction_of(graph)
        node["inputs"][name] = _with_time(instruction) if name == WORDS[TIMELINE] else instruction
    for where, value in inputs.items():
        node, _, name = where.partition(".")  # names of inputs may have more of them: resize_type.width
        if not node or not name:
            raise BatchError(f"{where}: must be Node.input, as LIVEditSampler.seed, or #id.input.")
        found = graph.get(node[1:]) if node.startswith("#") else graph[_only(graph, node)]
        if found is None:
            raise BatchError(f"{where}: there is no node {node[1:]} in the workflow.")
        if isinstance(found["inputs"].get(name), list):
            raise BatchError(f"{where}: is connected in the workflow, and cannot be set.")
        found["inputs"][name] = value
    return graph


def _with_time(instruction):
    """As a timeline: one that is none holds from the beginning on."""
    return instruction if re.match(r"[0:.]+s?[-–—|:\s]", instruction) else f"0:00 {' '.join(instruction.split())}"


def refuse_wrong(graph: dict, settings, nodes: dict) -> None:
    """Refuse inputs that nodes do not have, and values of another kind than theirs.

    The server would take no notice of the former, and of the latter what it can: "no" for yes, 1.5 for 1.

    Args:
        graph: filled in.
        settings: as `Class.input` or `#id.input`.
        nodes: what the server says of them.

    Raises:
        JobFailed: names the inputs that there are, or what the value must be.
    """
    for where in settings:
        place, _, name = where.partition(".")
        node = graph[place[1:] if place.startswith("#") else _only(graph, place)]
        kind, value = node["class_type"], node["inputs"][name]
        groups = nodes.get(kind, {}).get("input", {})
        found = {each: told for group in ("required", "optional") for each, told in groups.get(group, {}).items()}
        if found and name not in found and name.partition(".")[0] not in found:
            raise JobFailed(f"{where}: {kind} has no input {name}; it has {', '.join(found)}.")
        told = found.get(name, ())
        fits, must = VALUES.get(told[0] if told and isinstance(told[0], str) else "", (None, ""))
        if fits is not None and not fits(value):
            raise JobFailed(f"{where}: must be {must}, got {value}.")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# By a node's word for the kind of an input: what values it takes, and that in words.
VALUES = {
    "INT": (lambda value: _is_number(value) and value == value // 1, "a whole number"),
    "FLOAT": (_is_number, "a number, with a point as in 1.5"),
    "BOOLEAN": (lambda value: isinstance(value, int) and value in (0, 1), "true or false"),
    "STRING": (lambda value: not isinstance(value, (list, dict)), "text"),
}


def saver_of(graph: dict) -> str:
    """Id of the node that saves the result; of several the one that saves what Decode Video gives.

    Raises:
        BatchError: there is no such node, or more than one.
    """
    found = [key for key, node in graph.items() if node["class_type"] == SAVER]
    edits = [key for key in found if _class_behind(graph, graph[key]["inputs"].get("video")) == DECODER]
    return edits[0] if len(found) > 1 and len(edits) == 1 else _only(graph, SAVER)


def prompt_of(graph: dict, file: str, prefix: str) -> dict:
    """What is sent to the server: a filled-in graph that loads a file and saves under a name, with the report.

    Args:
        file: name in the server's input folder.
    """
    graph = json.loads(json.dumps(graph))
    graph[_only(graph, LOADER)]["inputs"][LOADED[1]] = file
    graph[saver_of(graph)]["inputs"]["filename_prefix"] = prefix
    return graph | {REPORT: {"class_type": "PreviewAny", "inputs": {"source": [_only(graph, SAMPLER), 1]}}}


def instruction_of(graph):
    """Node and name of the input that holds the instruction: what the sampler's positive prompt comes from."""
    key = _only(graph, SAMPLER)
    source, passed = graph[key]["inputs"].get("positive"), set()
    while isinstance(source, list) and source[0] in graph and source[0] not in passed:
        passed.add(source[0])
        node = graph[source[0]]
        name = WORDS.get(node["class_type"])
        if name in node["inputs"]:
            node, name = _text_behind(graph, node, name)
            if name is not None:
                return node, name
            break
        source = next(
            (
                node["inputs"][each]
                for each in ("positive", "conditioning", "conditioning_to")
                if each in node["inputs"]
            ),
            None,
        )
    raise BatchError(
        "The workflow's positive prompt comes from no node that is known to hold an instruction "
        f"({', '.join(WORDS)}), typed into it or into one text node before it. Connect such a node to {SAMPLER}."
    )


def _text_behind(graph, node, name):
    """The node that holds a text, and its input: the node itself, or one connected to it that holds a single text."""
    link = node["inputs"][name]
    if not isinstance(link, list):
        return node, name
    before = graph.get(link[0], {}).get("inputs", {})
    texts = [each for each, value in before.items() if isinstance(value, (str, list))]
    if len(texts) != 1 or texts[0] not in TEXTS or isinstance(before[texts[0]], list):
        return None, None
    return graph[link[0]], texts[0]


def _class_behind(graph, link):
    """The class of the node that a link comes from."""
    return graph.get(link[0], {}).get("class_type") if isinstance(link, list) else None


def _only(graph, class_type):
    found = [key for key, node in graph.items() if node["class_type"] == class_type]
    if len(found) == 1:
        return found[0]
    if found:
        raise BatchError(
            f"The workflow has {len(found)} nodes {class_type} ({', '.join(found)}), so that it is not clear which is "
            "meant. An input of one is set by #id.input; of what a batch needs, leave one and mute the others."
        )
    there = ", ".join(sorted({node["class_type"] for node in graph.values()}))
    raise BatchError(f"The workflow has no node {class_type}; it has {there}.")
