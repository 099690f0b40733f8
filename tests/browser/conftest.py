"""A ComfyUI in a real browser, for the tests of one file.

Playwright keeps an event loop running, which other tests need for themselves.
"""

import os
import shutil

import host
import pytest
from playwright.sync_api import sync_playwright

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A ComfyUI folder of a user who has the models that the workflows name.

    Here they are the small model under those names.
    """
    base = tmp_path_factory.mktemp("comfyui")
    names = {
        "diffusion_models": "liveditor_14b_bf16",
        "text_encoders": "umt5_xxl_fp8_e4m3fn_scaled",
        "vae": "wan_2.1_vae",
    }
    for folder in ("custom_nodes", "input", "output", "temp", "user", *(f"models/{name}" for name in names)):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "ComfyUI-LIVEditor").symlink_to(host.PACK, target_is_directory=True)
    shutil.copy(host.CLIPS / "bikes.mp4", base / "input" / "bikes.mp4")
    for folder, name in names.items():
        (small,) = (host.PACK / "models" / folder).glob("*.safetensors")
        host.link_or_copy(small, base / "models" / folder / f"{name}.safetensors")
    return base


@pytest.fixture(scope="module")
def page(base):
    """A browser page with ComfyUI open; it can reach nothing but this machine."""
    with host.Server(base=base) as server, sync_playwright() as playwright:
        server.client.post("api/settings/Comfy.TutorialCompleted", True)
        browser = playwright.chromium.launch(executable_path=os.environ["LIVEDITOR_CHROMIUM"], args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1680, "height": 1050})
        local = (f"http://127.0.0.1:{server.port}/", "data:", "blob:")
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(local) else route.abort())
        page.client = server.client
        page.goto(local[0])
        page.wait_for_function("window.app?.extensionManager && window.app.canvas", timeout=60_000)
        page.wait_for_selector(".p-blockui-mask", state="hidden")
        page.wait_for_selector("#graph-canvas")
        yield page
        browser.close()
