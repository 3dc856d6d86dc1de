"""The web page that the master serves: static files that use the public API and nothing else."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

_STATIC = Path(__file__).with_name("static")


def routes() -> list[web.AbstractRouteDef]:
    """Return the page's routes; none where its files are not there."""
    index = _STATIC / "index.html"
    if not index.is_file():
        return []

    async def home(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(index)

    return [web.get("/", home), web.static("/static", _STATIC)]
