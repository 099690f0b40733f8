"""A ComfyUI in a real browser: one server and one browser for all of these tests, a page of its own for every file.

Playwright keeps an event loop running, which tests elsewhere need for themselves: it ends with this package.
"""

import functools
import os
import shutil

import host
import pytest
from canvas import opened
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
    # Nothing but this machine can be reached. Routes of Playwright's would pass every request through Python.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def make_base(base):
    """A ComfyUI folder of a user who has the models that the workflows name.

    Here they are the small model under those names.
    """
    names = {
        "diffusion_models": "liveditor_14b_bf16",
        "text_encoders": "umt5_xxl_fp8_e4m3fn_scaled",
        "vae": "wan_2.1_vae",
    }
    rewriter = "gemma4_e4b_it_fp8_scaled"  # its file is there, which no test reads
    for folder in ("custom_nodes", "input", "output", "temp", "user", *(f"models/{name}" for name in names)):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "ComfyUI-LIVEditor").symlink_to(host.PACK, target_is_directory=True)
    shutil.copy(host.CLIPS / "bikes.mp4", base / "input" / "bikes.mp4")
    for folder, name in names.items():
        (small,) = (host.PACK / "models" / folder).glob("*.safetensors")
        host.link_or_copy(small, base / "models" / folder / f"{name}.safetensors")
    (base / "models" / "text_encoders" / f"{rewriter}.safetensors").touch()
    return base


def start(base, *arguments):
    """A server that keeps what it computed: a graph that ran in one renderer is not computed again for the other."""
    return host.Server(base=make_base(base), arguments=["--cache-lru", "200", *arguments])


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    with start(tmp_path_factory.mktemp("comfyui")) as server:
        yield server


@pytest.fixture(scope="package")
def newest_server(tmp_path_factory):
    """The same with the newest frontend."""
    with start(tmp_path_factory.mktemp("comfyui"), "--front-end-root", os.environ["LIVEDITOR_FRONTEND"]) as server:
        yield server


@pytest.fixture(scope="package")
def base(server):
    """The server's folder."""
    return server.base


@pytest.fixture(scope="package")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["LIVEDITOR_CHROMIUM"], args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def reports():
    """What pages reported as wrong."""
    return []


@pytest.fixture(scope="package")
def open_page(browser, reports):
    """A context manager that opens a page: function of the server and of the settings that its user changed."""
    return functools.partial(opened, browser, reports)


@pytest.fixture(scope="module")
def page(open_page, server):
    with open_page(server) as page:
        yield page


@pytest.fixture(autouse=True)
def nothing_wrong_in_the_console(reports):
    yield
    found = list(reports)
    reports.clear()
    assert not found, "\n".join(found)
