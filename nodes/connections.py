"""What a node is connected to: whether anything takes an output, and what an input is made by."""

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


def made_by(hidden, name: str):
    """What an input of the node that is executed comes from: nodes and their own inputs, as plain values.

    None where that cannot be told, or nothing is connected.
    """
    if hidden is None or hidden.dynprompt is None:
        return None
    node = hidden.dynprompt.get_node(hidden.unique_id)
    return _origin(hidden.dynprompt, node["inputs"].get(name))


def _origin(prompt, value):
    if not (isinstance(value, list) and len(value) == 2 and prompt.has_node(value[0])):
        return value
    node = prompt.get_node(value[0])
    return [node["class_type"], value[1], {key: _origin(prompt, each) for key, each in node["inputs"].items()}]


def _links_to(nodes, node_id, output):
    return any([node_id, output] == value for node in nodes for value in node["inputs"].values())
