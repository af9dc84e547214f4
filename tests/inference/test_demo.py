"""The page in a real browser: a clip is uploaded, its class and the explanation appear."""

import base64
import json
import shutil
import subprocess
import sys
import time
from urllib.request import Request, urlopen

import pytest
from helpers_engine import free_port

import slowfast
from slowfast.inference.demo import build_page, serve
from slowfast.utils.errors import UserError

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,2400"
)
# A video is shown where the browser has decoded its first frame.
SHOWN = (
    "return document.body.innerText.includes(arguments[0]) && "
    "[...document.querySelectorAll('video')].filter(one => one.readyState >= 2 && one.videoWidth > 0).length == 2 && "
    "[...document.querySelectorAll('img')].some(one => one.naturalWidth > 100)"
)


@pytest.fixture
def browser(tmp_path):
    """A function that sends a command of the WebDriver protocol to a new session of Chromium."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    options = {"args": [*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"], "binary": shutil.which("chromium")}
    session = ""

    def send(path, method="POST", **content):
        data = json.dumps(content).encode() if method == "POST" else None
        address = f"http://127.0.0.1:{port}/session{session}{path}"
        with urlopen(Request(address, data, {"Content-Type": "application/json"}, method=method)) as reply:
            return json.load(reply)["value"]

    try:
        for _ in range(100):
            try:
                opened = send("", capabilities={"alwaysMatch": {"goog:chromeOptions": options}})
                break
            except OSError:
                time.sleep(0.1)
        session = f"/{opened['sessionId']}"
        yield send
        send("", "DELETE")
    finally:
        driver.terminate()
        driver.wait()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{seconds} s have passed")


@pytest.mark.slow
def test_uploaded_clip_is_classified_and_explained(browser, tmp_path):
    pytest.importorskip("gradio")
    model = slowfast.load_model("emim_tiny_motion", device="cpu")
    page = serve(build_page(model, "motions", tmp_path), free_port())
    try:
        assert page.local_url.startswith("http://127.0.0.1:")
        browser("/url", url=page.local_url)
        (upload,) = wait_for(lambda: browser("/elements", using="css selector", value="input[type=file]"))[:1]
        browser(f"/element/{next(iter(upload.values()))}/value", text=slowfast.sample_video())
        wanted = model.predict(slowfast.sample_video()).class_name
        try:
            wait_for(lambda: browser("/execute/sync", script=SHOWN, args=[wanted]))
        finally:
            (tmp_path / "page.png").write_bytes(base64.b64decode(browser("/screenshot", "GET")))
    finally:
        page.close()


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r'pip install "slowfast-emim\[demo\]"'):
        build_page(None, "", tmp_path)
