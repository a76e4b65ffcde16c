"""Real servers on loopback for tests of what goes out and comes in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web


@contextlib.asynccontextmanager
async def serving(handler, **options) -> AsyncIterator[int]:
    """A real HTTP server on loopback that answers everything with `handler`; gives its port."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, **{"host": "127.0.0.1", "port": 0, **options})
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def speaking(talk) -> AsyncIterator[int]:
    """A raw TCP server on loopback for answers no proper server gives: `talk(reader, writer)`; gives its port."""

    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
