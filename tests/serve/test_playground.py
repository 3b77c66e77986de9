"""The playground without a browser: what it answers, whom it refuses, and that an attack stays in its ball."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import autolora
from autolora.cli import run as command
from autolora.cli import serve
from autolora.errors import InputError
from autolora.serve.playground import Playground, open_playground
from autolora.serve.uploads import LIMIT, as_the_model_takes_it
from autolora.threat import ThreatModel

pytest.importorskip("starlette", reason="no starlette: pip install 'autolora[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'autolora[serve]'")
from starlette.testclient import TestClient

from autolora.serve.application import ASKED, application

from .trained import CLASSES, png, trained

HERE = {ASKED: "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def playground(folder: Path) -> Playground:
    return open_playground([folder / "run"], data=None, device=torch.device("cpu"), progress=False)


@pytest.fixture
def client(playground: Playground) -> TestClient:
    return TestClient(application(playground), base_url="http://127.0.0.1:8765")


def pixels_of(address: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).astype(int)


def test_a_test_image_is_shown_as_it_is_and_attacked_within_eps(client: TestClient, playground: Playground) -> None:
    answer = client.post("/attack?eps=6/255&norm=Linf&steps=4&index=3", headers=HERE)
    assert answer.status_code == 200
    (outcome,) = answer.json()["outcomes"]
    assert playground.images is not None
    x, y = playground.images[3]
    natural, attacked, difference = (pixels_of(outcome["pictures"][name]) for name in outcome["pictures"])
    assert (natural == (255 * x).round().permute(1, 2, 0).numpy()).all()
    assert 1 <= abs(attacked - natural).max() <= 6
    assert abs(difference - (127.5 + 10 * (attacked - natural)).clip(0, 255)).max() <= 6  # rounded before and after
    assert outcome["target"] == CLASSES[y]
    assert "6/255 of the pixel range" in answer.json()["threat"]


def test_what_it_says_is_what_the_model_says(client: TestClient, playground: Playground) -> None:
    (outcome,) = client.post("/attack?eps=0&steps=1&index=0", headers=HERE).json()["outcomes"]
    assert playground.images is not None
    probabilities = playground.players[0].model(playground.images[0][0][None]).softmax(dim=1)[0]
    told = {each["name"]: each["share"] for each in outcome["natural"]["classes"]}
    assert [told[name] for name in CLASSES] == pytest.approx(probabilities.tolist(), abs=1e-6)
    assert outcome["attacked"] == outcome["natural"], "at eps 0 the only image of S(x) is the natural one"


def test_an_upload_is_cut_as_test_images_are_and_its_prediction_changes(client: TestClient) -> None:
    grey = png(np.full((64, 48, 3), 128))
    found = client.post("/attack?eps=64/255&steps=20", content=grey, headers=HERE).json()["outcomes"][0]
    assert pixels_of(found["pictures"]["natural"]).shape == (32, 32, 3)
    assert found["natural"]["right"] and not found["attacked"]["right"]
    assert found["natural"]["classes"][0]["name"] != found["attacked"]["classes"][0]["name"]


def test_an_l2_attack_is_as_long_as_eps(playground: Playground) -> None:
    (outcome,) = playground.on_test_image(1, ThreatModel("0.5", "L2"), 8)
    assert float((outcome.x_adv - outcome.x).norm()) == pytest.approx(0.5, abs=0.01)


def test_two_runs_see_the_same_image_at_their_own_size(folder: Path, tmp_path: Path) -> None:
    autolora.finetune(folder / "photos", out=tmp_path / "large", method="ft", image_size=48, epochs=1, progress=False)
    both = open_playground([folder / "run", tmp_path / "large"], data=None, device=torch.device("cpu"), progress=False)
    small, large = both.on_test_image(2, ThreatModel("4/255"), 1)
    assert (small.x.shape[-1], large.x.shape[-1]) == (32, 48)
    assert small.target == large.target
    assert both.players[1].images is not None
    assert torch.equal(large.x, both.players[1].images[2][0]), "as it was tested on, not enlarged from the small one"
    again = torch.nn.functional.interpolate(large.x[None], size=32, mode="bilinear", antialias=True)[0]
    assert float(torch.corrcoef(torch.stack([again.flatten(), small.x.flatten()]))[0, 1]) > 0.6  # it is all noise


def test_images_to_choose_from_are_of_all_classes_and_each_comes_once(client: TestClient) -> None:
    found = client.get("/images?first=0", headers=HERE).json()
    later = client.get("/images?first=2", headers=HERE).json()["images"]
    assert [each["label"] for each in found["images"]][:4] == [*CLASSES, *CLASSES]
    assert sorted(each["index"] for each in found["images"]) == list(range(found["of"]))
    assert later == found["images"][2:]


@pytest.mark.parametrize(
    ("query", "body", "message"),
    [
        ("steps=0&index=0", b"", "steps=0: take 1 to 200"),
        ("steps=9999&index=0", b"", "take 1 to 200"),
        ("steps=-1&index=0", b"", "not a whole number"),
        ("eps=8&index=0", b"", "did you mean 8/255?"),
        ("eps=__import__('os')&index=0", b"", "is not a number"),
        ("norm=L7&index=0", b"", "norm='L7' is not a known threat model"),
        ("index=99999", b"", "there is no test image 99999"),
        ("index=../../etc/passwd", b"", "not a whole number"),
        ("eps=8/255", b"", "no image was given"),
        ("eps=8/255", b"<script>alert(1)</script>", "no image that can be read"),
        ("eps=8/255", png(np.zeros((8, 8, 3)))[:40], "no image that can be read"),
        ("eps=8/255", b"\x89PNG" + bytes(LIMIT), "more than 10 MB"),
    ],
)
def test_a_mistake_gets_one_line(client: TestClient, query: str, body: bytes, message: str) -> None:
    answer = client.post(f"/attack?{query}", content=body, headers=HERE)
    assert answer.status_code == 400 and message in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_an_image_that_would_need_gigabytes_is_refused(playground: Playground) -> None:
    header = png(np.zeros((1, 1, 3)))
    gigantic = header.replace((1).to_bytes(4, "big") * 2, (100_000).to_bytes(4, "big") * 2, 1)
    with pytest.raises(InputError, match="no image that can be read"):
        as_the_model_takes_it(gigantic, 8, 8)


@pytest.mark.parametrize("host", ["evil.example", "192.168.0.7:8765", "127.0.0.1.evil.example"])
def test_other_names_of_the_machine_are_refused(playground: Playground, host: str) -> None:
    client = TestClient(application(playground), base_url=f"http://{host}")
    for path in ("/", "/images", "/page.js"):
        assert client.get(path, headers=HERE).status_code == 400


def test_a_page_of_another_site_cannot_ask(client: TestClient) -> None:
    assert client.get("/images").status_code == 403
    assert client.post("/attack?index=0").status_code == 403
    asked = client.options(
        "/attack", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in asked.headers


def test_nothing_else_is_served(client: TestClient, folder: Path) -> None:
    for path in (
        "/result.json",
        "/../run/config.yaml",
        "/%2e%2e/config.yaml",
        str(folder / "run/config.yaml"),
        "/static/",
    ):
        assert client.get(path, headers=HERE).status_code == 404
    for address in ("/", "/page.js", "/page.css"):
        answer = client.get(address)
        assert answer.status_code == 200 and "script-src 'self'" in answer.headers["content-security-policy"]
    assert str(folder) not in client.get("/").text + json.dumps(client.get("/images", headers=HERE).json())


def test_names_are_escaped_in_the_page(folder: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "<script>alert(1)<"
    shutil.copytree(folder / "run", hostile)
    opened = open_playground([hostile], data=None, device=torch.device("cpu"), progress=False)
    page = TestClient(application(opened), base_url="http://localhost").get("/").text
    assert page.count("<script") == 1 and "<script src=" in page and "&lt;script&gt;alert(1)" in page


def test_without_the_images_uploads_remain(folder: Path) -> None:
    opened = open_playground([folder / "run"], data="digits", device=torch.device("cpu"), progress=False)
    client = TestClient(application(opened), base_url="http://localhost")
    assert "No test images to choose from" in client.get("/").text
    assert client.get("/images", headers=HERE).status_code == 400
    assert client.post("/attack?steps=1", content=png(np.zeros((32, 32, 3))), headers=HERE).status_code == 200


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no run given"),
        (["nowhere"], "nowhere holds no run"),
        (["nowhere", "--port", "70000"], "from 0 to 65535"),
        (["nowhere", "--host", "0.0.0.0"], "option --host is unknown"),
    ],
)
def test_the_command_refuses(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["serve", "--port", "0", *argv] if "--port" not in argv else ["serve", *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command(["serve", "nowhere", "--port", str(taken.getsockname()[1])]) == 2
    assert "--port 0 takes one that is free" in capsys.readouterr().err


def test_it_listens_on_this_machine_alone() -> None:
    with serve._listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
