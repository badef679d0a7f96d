"""An echo server and a client of the `websockets` library, with a gateway between them.

argv: port of the echo server to open, URL of the gateway, and for `wss` the certificate to trust.
Prints one JSON object.
"""

import asyncio
import json
import random
import ssl
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(connection):
    if connection.request.path.endswith("/refused-later"):
        await connection.close(4001, "go away")
        return
    async for message in connection:
        await connection.send(message)


async def refuse(connection, request):
    if request.path.endswith("/forbidden"):
        return connection.respond(403, "not you\n")
    return None


async def run(port, url, trusted=None):
    done = {}
    options = {"ssl": ssl.create_default_context(cafile=trusted)} if trusted else {}
    async with serve(
        echo, "127.0.0.1", port, subprotocols=["chat"], process_request=refuse, max_size=None
    ):
        async with connect(url + "/echo", subprotocols=["chat"], max_size=None, **options) as client:
            done["subprotocol"] = client.subprotocol
            sizes = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]
            dice = random.Random(1)
            echoed = []
            for size in sizes:
                data = dice.randbytes(size)
                await client.send(data)
                text = "ä" * (size // 2)
                await client.send(text)
                echoed.append(await client.recv() == data and await client.recv() == text)
            done["sizes"] = echoed
            parts = [dice.randbytes(dice.randrange(1, 5000)) for _ in range(40)]
            await client.send(parts)
            done["fragments"] = await client.recv() == b"".join(parts)
            done["pong"] = await asyncio.wait_for(await client.ping(b"are you there"), 20) >= 0
            burst = [dice.randbytes(dice.randrange(0, 3000)) for _ in range(500)]

            async def send_all():
                for message in burst:
                    await client.send(message)

            sending = asyncio.create_task(send_all())
            done["burst"] = [await client.recv() for _ in burst] == burst
            await sending
        done["close"] = [client.close_code, client.close_reason]
        async with connect(url + "/refused-later", subprotocols=["chat"], **options) as client:
            try:
                await client.recv()
            except websockets.ConnectionClosed as closed:
                done["closed"] = [closed.rcvd.code, closed.rcvd.reason]
        try:
            async with connect(url + "/forbidden", subprotocols=["chat"], **options):
                pass
        except websockets.InvalidStatus as refused:
            done["forbidden"] = [refused.response.status_code, refused.response.body.decode()]
        clients = [await connect(url + "/echo", subprotocols=["chat"], **options) for _ in range(50)]
        for n, client in enumerate(clients):
            await client.send(str(n))
        done["many"] = [await client.recv() for client in clients] == [str(n) for n in range(50)]
        for client in clients:
            await client.close()
    return done


print(json.dumps(asyncio.run(run(int(sys.argv[1]), *sys.argv[2:]))))
