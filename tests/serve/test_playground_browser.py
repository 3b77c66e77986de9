"""The playground and a gallery in a real browser: an upload is attacked, and names are text whatever is in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from autolora.cli import serve
from autolora.report.writing import write_report
from autolora.serve.playground import open_playground

from .trained import CLASSES, png, trained

uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'autolora[serve]'")


@pytest.fixture(scope="module")
def folder(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A playground of two runs, of which one has a name that is markup."""
    from autolora.serve.application import application

    shutil.copytree(folder / "run", folder / "<script>alert(2)<")
    runs = [folder / "run", folder / "<script>alert(2)<"]
    playground = open_playground(runs[:1], data=None, device=torch.device("cpu"), progress=False)
    twice = open_playground(runs[1:], data=None, device=torch.device("cpu"), progress=False)
    playground.players = (*playground.players, *twice.players)
    with serve._listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(application(playground), log_level="error"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab at the width of a phone; ``heard`` is all that it said, and every address elsewhere that it asked for."""
    context = browser.new_context(viewport={"width": 390, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("dialog", lambda dialog: page.heard.append(dialog.message))
    page.on(
        "request",
        lambda it: None if it.url.startswith(("http://127.0.0.1", "data:", "file:")) else page.heard.append(it.url),
    )
    yield page
    context.close()


def leaders(tab: Any, kind: str) -> list[str]:
    """Return what each model takes the image for first."""
    return [each.split(" ")[0] for each in tab.locator(f"ul.{kind} li:first-child").all_inner_texts()]


def test_an_upload_is_attacked_and_its_prediction_changes(tab: Any, address: str, tmp_path: Path) -> None:
    hostile = tmp_path / "<script>alert(3)<.png"
    hostile.write_bytes(png(np.full((40, 40, 3), 128)))
    tab.goto(address)
    tab.locator("#strip button").first.wait_for()
    tab.fill("#eps", "64/255")
    tab.set_input_files("#file", str(hostile))
    tab.locator("article.outcome").nth(1).wait_for()
    assert tab.locator("#status").inner_text() == f"your image {hostile.name}"
    natural, attacked = leaders(tab, "natural"), leaders(tab, "attacked")
    assert len(natural) == 2 and natural[0] != attacked[0]
    sizes = tab.evaluate("[...document.querySelectorAll('figure img')].map(image => image.naturalWidth)")
    assert sizes == [32] * 6
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate("document.querySelectorAll('script').length") == 1
    assert tab.heard == []


def test_a_test_image_is_chosen_and_attacked_again_with_other_options(tab: Any, address: str) -> None:
    tab.goto(address)
    tab.locator("#strip button").first.click()
    tab.locator("article.outcome").first.wait_for()
    assert "8/255 of the pixel range" in tab.locator("#threat").inner_text()
    assert CLASSES[0] in tab.locator("#strip button").first.inner_text()
    tab.select_option("#norm", "L2")
    tab.click("#go")
    tab.get_by_text("Euclidean length of at most 0.5").wait_for()
    tab.fill("#eps", "8")
    tab.select_option("#norm", "Linf")
    tab.fill("#eps", "8")
    tab.click("#go")
    tab.get_by_text("did you mean 8/255?").wait_for()
    assert [text for text in tab.heard if "400" not in text] == []


def test_the_gallery_of_a_report_shows_its_images(tab: Any, folder: Path) -> None:
    page = write_report([folder / "run"], progress=False)
    tab.goto(page.as_uri())
    tab.locator("nav a[href='#gallery']").click()
    images = tab.locator("#gallery img")
    assert images.count() >= 3
    assert images.first.is_visible()
    assert all(
        width == 32 for width in tab.evaluate("[...document.querySelectorAll('#gallery img')].map(i => i.naturalWidth)")
    )
    assert tab.heard == []
