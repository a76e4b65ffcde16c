"""The sandbox as one aiohttp application: routes, guards, start and end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from . import control, hooks, korea, pages
from .database import Database
from .duties import Duties
from .faults import Faults
from .hooks import SANDBOX, Sandbox
from .pages import MAIL, Mail
from .parties import Parties
from .portal import Portal

LARGEST_BODY = 65_536  # bytes; the bulk load of holdings is a stream and has no such limit

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # not no-referrer: the Origin of a form would be null
    "Cache-Control": "no-store",
}


def application(
    *,
    port: int,
    database: Path,
    config: Path | None = None,
    mail: Path | None = None,
    delays: tuple[float, float] = (1.0, 2.0),
) -> web.Application:
    """The whole sandbox. `delays`: seconds until `stopped` and until `erased` are proved."""
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[guard])
    store, parties = Database(database), Parties(config)
    portal = Portal(parties)
    app[SANDBOX] = Sandbox(
        database=store,
        parties=parties,
        faults=Faults(store),
        portal=portal,
        duties=Duties(store, parties, portal, f"http://127.0.0.1:{port}"),
        delays=delays,
    )
    app[MAIL] = Mail(mail)
    app.cleanup_ctx.append(_running)
    app.add_routes(
        [
            web.get("/", pages.front),
            web.get("/mail/", pages.mail),
            web.get("/_/state", control.state),
            web.get("/_/effects", control.effects),
            web.post("/_/faults", control.switch),
            web.post("/_/keys", control.key),
            web.post("/_/holdings", control.load),
            web.post("/_/reset", control.reset),
            web.post("/{code}/hooks/consent", hooks.consent),
            web.get("/{code}/reports/{jti}/{status}", control.report),
        ]
    )
    korea.mount(app)
    return app


async def _running(app: web.Application) -> AsyncIterator[None]:
    sandbox = app[SANDBOX]
    await sandbox.database.open()
    await sandbox.faults.load()
    await sandbox.portal.open()
    loop = asyncio.create_task(sandbox.duties.run())
    yield
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    await sandbox.portal.close()
    await sandbox.database.close()


@web.middleware
async def guard(request: web.Request, handler) -> web.StreamResponse:
    """A page of another site can neither read the sandbox (its Host would be foreign) nor switch it (its Origin)."""
    names, host = request.app[SANDBOX].own_names, request.headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in names:
        return web.Response(status=403, text="this server answers only to 127.0.0.1 and localhost\n")
    if request.method not in {"GET", "HEAD"}:
        origin = request.headers.get("Origin", f"http://{host}")
        if origin != f"http://{host}" or request.headers.get("Sec-Fetch-Site", "none") not in {
            "none",
            "same-origin",
        }:
            return web.Response(status=403, text="a request from another site is refused\n")
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    response.headers.update(HEADERS)
    return response
