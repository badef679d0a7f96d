"""An echo server of the `websockets` library, with its compression. argv: port."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None):
        print("serving", flush=True)
        await asyncio.Future()


asyncio.run(main())
