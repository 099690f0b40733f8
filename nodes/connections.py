"""What a node is connected to: whether anything takes an output, and what an input is made by."""

import folder_paths

from .host_server import running


def taken(hidden, output: int) -> bool:
    """Whether an output of the node that is executed is connected; True where that cannot be told.

    Args:
        hidden: of the node class, with dynprompt and unique_id.
    """
    if hidden is None or hidden.dynprompt is None:
        return True
    prompt = hidden.dynprompt
    return _links_to((prompt.get_node(key) for key in prompt.all_node_ids()), hidden.unique_id, output)


def taken_by_prompt(hidden, output: int) -> bool:
    """The same before the node is executed, while the host decides whether it must be."""
    server = running()
    if hidden is None or server is None:
        return True
    items, _ = server.prompt_queue.get_current_queue_volatile()
    prompts = [item[2] for item in items if hidden.unique_id in item[2]]
    return not prompts or any(_links_to(prompt.values(), hidden.unique_id, output) for prompt in prompts)


def made_by(hidden, *names: str):
    """What inputs of the node that is executed come from: nodes and their own inputs, as plain values.

    None where that cannot be told.
    """
    if hidden is None or hidden.dynprompt is None:
        return None
    prompt, numbers, nodes = (
        hidden.dynprompt,
        {},
        [],
    )  # numbers by the order of visiting: ids change from graph to graph

    def origin(value):
        if not (
            isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and prompt.has_node(value[0])
        ):
            return value
        key = value[0]
        if key not in numbers:
            numbers[key] = len(numbers)
            node = prompt.get_node(key)
            nodes.append(
                [node["class_type"], numbers[key], {name: origin(each) for name, each in node["inputs"].items()}]
            )
        return [numbers[key], value[1]]

    inputs = prompt.get_node(hidden.unique_id)["inputs"]
    return [[origin(inputs.get(name)) for name in names], nodes]


def _links_to(nodes, node_id, output):
    return any([node_id, output] == value for node in nodes for value in node["inputs"].values())


def files_behind(hidden, name: str, folders) -> dict[str, str]:
    """The model files that an input of the node that is executed comes from, by name, with their paths.

    Args:
        folders: of models, by the host's names for them; the first that has a file counts.
    """
    _, nodes = made_by(hidden, name) or (None, [])
    texts = {value for _, _, inputs in nodes for value in inputs.values() if isinstance(value, str)}
    found = {text: [folder_paths.get_full_path(folder, text) for folder in folders] for text in sorted(texts)}
    return {text: path for text, paths in found.items() if (path := next(filter(None, paths), None))}
