"""The web application: five addresses, for this machine alone, and no file of any folder behind them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from autolora.errors import InputError
from autolora.report.headlines import threat_sentence
from autolora.report.wording import plain
from autolora.serve.answers import listing_json, outcome_json
from autolora.serve.playground import MOST_STEPS, Playground
from autolora.serve.uploads import LIMIT, TOO_LARGE
from autolora.threat import ThreatModel

HOSTS = ["127.0.0.1", "localhost"]
ASKED = "x-autolora"  # a header that a page of another site cannot send without being asked, and is then refused
AT_ONCE = 24  # test images to choose from
DEFAULT_STEPS = 10
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(playground: Playground) -> Starlette:
    """Return the application.

    ============  ======================================================================
    address       gives
    ============  ======================================================================
    ``/``         the page
    ``/page.css`` ``/page.js``  its looks, and what it does
    ``/images``   test images to choose from; ``?first=`` and the 23 after it
    ``/attack``   (POST) an attack: ``?eps=``, ``norm=``, ``steps=``, and ``index=`` of a test
                  image, or the bytes of an image file as the body
    ============  ======================================================================

    It answers requests to this machine by its own name alone, so that no other site can reach it through a browser.
    """

    async def images(request: Request) -> Response:
        first = _whole(request, "first", 0)
        chosen = playground.images
        if chosen is None:
            raise InputError(playground.lacks)
        listing = await run_in_threadpool(listing_json, chosen, playground.players[0].run.classes, first, AT_ONCE)
        return _answer({"images": listing, "of": len(chosen)})

    async def attack(request: Request) -> Response:
        threat = ThreatModel(request.query_params.get("eps", "8/255"), _norm(request))
        steps = _whole(request, "steps", DEFAULT_STEPS)
        if "index" in request.query_params:
            found = await run_in_threadpool(playground.on_test_image, _whole(request, "index", 0), threat, steps)
        else:
            found = await run_in_threadpool(playground.on_upload, await _body(request), threat, steps)
        return _answer({"threat": threat_sentence(threat), "outcomes": [outcome_json(outcome) for outcome in found]})

    async def page(request: Request) -> Response:
        return HTMLResponse(_page(playground), headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/page.css", _asset("page.css", "text/css")),
            Route("/page.js", _asset("page.js", "text/javascript")),
            Route("/images", _own(images)),
            Route("/attack", _own(attack), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        exception_handlers={InputError: _refused},
    )


Handler = Callable[[Request], Awaitable[Response]]


def _own(handler: Handler) -> Handler:
    """Answer only what this page asks."""

    async def handle(request: Request) -> Response:
        if ASKED not in request.headers:
            return _answer({"error": "this address answers only the page itself"}, 403)
        return await handler(request)

    return handle


def _asset(name: str, kind: str) -> Handler:
    text = files("autolora.serve").joinpath("templates", name).read_text(encoding="utf-8")

    async def give(request: Request) -> Response:
        return Response(text, media_type=kind, headers=HEADERS)

    return give


async def _body(request: Request) -> bytes:
    """Read what was uploaded, and not a byte more than is allowed."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LIMIT:
            raise InputError(TOO_LARGE)
    if not data:
        raise InputError("no image was given; choose a test image or a file")
    return bytes(data)


async def _refused(request: Request, error: Exception) -> Response:
    return _answer({"error": plain(error)}, 400)


def _answer(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, headers=HEADERS)


def _whole(request: Request, name: str, default: int) -> int:
    """Read a whole number, 0 or more, of the address."""
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InputError(f"{name}={given!r} is not a whole number")
    return int(given)


def _norm(request: Request) -> Any:
    return request.query_params.get("norm", "Linf")  # ThreatModel refuses what it does not know


def _page(playground: Playground) -> str:
    """Write the page; the names in it are escaped."""
    environment = Environment(
        loader=PackageLoader("autolora.serve"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["plain"] = plain
    first = playground.players[0].run
    return environment.get_template("page.html").render(
        names=[player.run.name for player in playground.players],
        threat=first.threat,
        eps=str(first.threat).partition(" ")[2],
        steps=DEFAULT_STEPS,
        most=MOST_STEPS,
        lacks=playground.lacks if playground.images is None else "",
        megabytes=LIMIT // 2**20,
    )
