"""What the browser tests do on the canvas."""

import json


def open_workflow(page, path):
    page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [json.loads(path.read_text(encoding="utf-8")), path.stem])
    page.wait_for_function("n => app.graph.nodes.length === n", arg=len(json.loads(path.read_text(encoding='utf-8'))["nodes"]))
