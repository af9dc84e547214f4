"""Weights by name, against a local server that speaks the Hub's protocol and has files in the published layouts."""

import hashlib
import re
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from huggingface_hub import constants

import slowfast
from slowfast.engine.checkpoint import starting_weights
from slowfast.inference.export import export
from slowfast.models import build_model, zoo
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.errors import UserError

SMALL = {
    "UNIFORMER.EMBED_DIM": [8, 8, 16, 16], "UNIFORMER.DEPTH": [1, 1, 1, 1], "UNIFORMER.HEAD_DIM": 8,
    "DATA.TEST_CROP_SIZE": 32, "DATA.TEST_SHORT_SIDE": 32, "DATA.NUM_FRAMES": 1,
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol by which files are fetched."""

    def do_GET(self):
        repository, found, file = self.path[1:].partition("/resolve/main/")
        content = self.server.files.get(f"{repository}/{file}") if found else None
        if content is None:
            is_known = any(name.startswith(f"{repository}/") for name in self.server.files)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if is_known else "RepoNotFound")
            content = b""
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", 40 * "a")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        self.server.requests.append(self.command)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, whose ``files`` are to be filled; the cache of the library is empty, weights of the zoo are small."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.requests = {}, []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    # What HF_ENDPOINT and HF_HOME set when the library is imported.
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "LOCAL_FOLDER", str(tmp_path / "pretrained"))
    for name in ("uniformer_s", "uniformer_s_image"):
        monkeypatch.setitem(zoo.ARCHITECTURES, name, {**zoo.ARCHITECTURES[name], **SMALL})
    yield server
    server.shutdown()
    server.server_close()


def publish(hub, name, wrapped, tmp_path, monkeypatch):
    """Put random weights of a zoo's model on the server, with their checksum in the zoo; return the network."""
    torch.manual_seed(1)
    published = zoo.ZOO[name]
    model = slowfast.create_model(published.architecture, published.num_classes).eval()
    torch.save({"model": model.state_dict()} if wrapped else model.state_dict(), tmp_path / "published.pth")
    content = (tmp_path / "published.pth").read_bytes()
    hub.files[f"{published.repository}/{published.file}"] = content
    monkeypatch.setitem(zoo.ZOO, name, replace(published, sha256=hashlib.sha256(content).hexdigest()))
    return model


@pytest.mark.parametrize(
    ("name", "wrapped", "first", "frames"),
    [("uniformer_s16_k400", False, "riding a bike", 16), ("uniformer_s_in1k", True, "tench", 1)],
)
def test_published_weights_by_name(hub, tmp_path, monkeypatch, name, wrapped, first, frames):
    network = publish(hub, name, wrapped, tmp_path, monkeypatch)
    model = slowfast.load_model(name, device="cpu")
    clips = torch.randn(2, 3, frames, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.model(clips), network(clips), rtol=0, atol=0)
    assert (len(model.class_names), model.cfg.DATA.NUM_FRAMES) == (zoo.ZOO[name].num_classes, frames)
    assert first in model.class_names
    hub.requests.clear()
    started = build_model(slowfast.load_model(name, device="cpu").cfg)
    report = load_pretrained(started, starting_weights(name, ""))
    assert len(report.loaded) == len(network.state_dict()) and "GET" not in hub.requests  # it is in the cache


def test_image_weights_start_a_video_model(hub, tmp_path, monkeypatch):
    network = publish(hub, "uniformer_s_in1k", True, tmp_path, monkeypatch)
    small = {key.replace(".", "__"): value for key, value in SMALL.items()}
    video = slowfast.create_model("emim_s", 7, 4, **small | {"DATA__NUM_FRAMES": 4})
    report = load_pretrained(video, starting_weights("uniformer_s_in1k", ""))
    assert "patch_embed1.proj.weight" in report.inflated
    torch.testing.assert_close(video.patch_embed1.proj.weight.sum(2), network.patch_embed1.proj.weight)


def test_folder_of_others_by_its_place_on_the_hub(hub, tmp_path):
    export("emim_tiny_motion", "hf-folder", str(tmp_path / "folder"), False)
    assert "\nlicense: apache-2.0\n---" in (tmp_path / "folder" / "README.md").read_text()
    hub.files |= {f"me/motions/{file.name}": file.read_bytes() for file in (tmp_path / "folder").iterdir()}
    wanted = slowfast.load_model("emim_tiny_motion").predict(slowfast.sample_video())
    for source in ("hf-hub:me/motions", "hf-hub:me/motions/model.safetensors"):
        found = slowfast.load_model(source).predict(slowfast.sample_video())
        np.testing.assert_array_equal(found.logits, wanted.logits)
        assert found.top == wanted.top and starting_weights(source, "").endswith("model.safetensors")


def test_what_is_wrong_is_said_in_one_line(hub, tmp_path, monkeypatch):
    publish(hub, "uniformer_s_in1k", True, tmp_path, monkeypatch)
    file = zoo.ZOO["uniformer_s_in1k"].file

    def refuses(source, message):
        for use in (slowfast.load_model, lambda source: starting_weights(source, "")):
            with pytest.raises(UserError, match=message) as caught:
                use(source)
            assert "\n" not in str(caught.value)

    refuses("hf-hub:me/nothing", "hf-hub:me/nothing does not exist or is private")
    refuses("hf-hub:Sense-X/uniformer_image/other.pth", "hf-hub:Sense-X/uniformer_image has no other.pth")
    refuses("hf-hub:me", "is not of the form hf-hub:USER/REPOSITORY")
    monkeypatch.setitem(zoo.ZOO, "uniformer_s_in1k", replace(zoo.ZOO["uniformer_s_in1k"], sha256=64 * "0"))
    refuses("uniformer_s_in1k", f"{file} has SHA-256 .*, the published file {64 * '0'}: delete it")
    hub.shutdown()
    hub.server_close()
    place = re.escape(str(tmp_path / "pretrained" / zoo.ZOO["uniformer_s16_k400"].file))
    refuses("uniformer_s16_k400", f"cannot be reached.*put it at {place}")
    refuses("hf-hub:me/motions", "cannot be reached.*name that file instead")


def test_file_put_there_by_hand_is_used_without_network(hub, tmp_path, monkeypatch):
    publish(hub, "uniformer_s_in1k", True, tmp_path, monkeypatch)
    (content,) = hub.files.values()
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / zoo.ZOO["uniformer_s_in1k"].file).write_bytes(content)
    assert slowfast.load_model("uniformer_s_in1k").class_names[0] == "tench" and not hub.requests
