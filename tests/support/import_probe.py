"""Import the pack as ComfyUI does and print what that did.

Seconds, writes, connections, and host attributes it replaced.
"""

import asyncio
import importlib.util
import json
import sys
import time

import comfy_library  # noqa: F401
import server

import comfy.samplers  # noqa: F401
import comfy_api.latest  # noqa: F401
import comfy_extras.nodes_model_advanced  # noqa: F401
import nodes  # noqa: F401

ADDED = {("comfy.k_diffusion.sampling", "sample_flow_unipc")}  # how a sampler becomes known to KSampler


def host_attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in (
            "comfy",
            "nodes",
            "execution",
            "server",
            "folder_paths",
            "comfy_extras",
            "comfy_api",
            "latent_preview",
            "node_helpers",
        ):
            for attribute, value in list(vars(module).items()):
                if not attribute.startswith("__"):
                    found[name, attribute] = value
                    if isinstance(value, type):
                        found |= {
                            (name, f"{attribute}.{method}"): item
                            for method, item in vars(value).items()
                            if callable(item)
                        }
    return found


def main(pack):
    events, watching = [], True

    def audit(event, arguments):
        if watching and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            events.append(f"wrote {arguments[0]}")
        elif watching and event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
            events.append(f"{event} {arguments}")

    loop = asyncio.new_event_loop()
    server.PromptServer(loop)  # the host is up before custom nodes are imported
    before = host_attributes()
    sys.addaudithook(audit)
    start = time.process_time()
    spec = importlib.util.spec_from_file_location("pack", f"{pack}/__init__.py", submodule_search_locations=[pack])
    module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def load():
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    loaded = loop.run_until_complete(load())
    seconds = time.process_time() - start
    watching = False
    after = host_attributes()
    changed = [".".join(key) for key, value in before.items() if after.get(key) is not value]
    changed += [
        ".".join(key) for key in after.keys() - before.keys() if key[0] in {k[0] for k in before} and key not in ADDED
    ]
    optional = [
        name
        for name in ("triton", "tilelang", "flash_attn", "huggingface_hub")
        if any(m.split(".")[0] == name for m in sys.modules) and name not in HAD
    ]
    print(
        json.dumps(
            {"seconds": seconds, "events": events, "changed": changed, "nodes": len(loaded), "optional": optional}
        )
    )


HAD = {name.split(".")[0] for name in sys.modules}

if __name__ == "__main__":
    main(sys.argv[1])
