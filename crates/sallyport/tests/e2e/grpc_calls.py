"""A gRPC server and clients of the `grpcio` library, with a gateway between them.

argv: JSON with `serve` (ports to open: plain and with TLS), `cert`, `key`, `plain` and `tls` (ports
of the gateway). Prints one JSON object. Messages are bytes as they are: nothing is generated.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

cancelled = threading.Event()
asked = []
peers = set()


def unary(request, context):
    asked.append(dict(context.invocation_metadata()))
    peers.add(context.peer())
    context.send_initial_metadata((("x-first", "1"),))
    context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "100 % b\u00f6se")


def hang(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        time.sleep(0.01)
    return b""


def client_stream(requests, context):
    return b",".join(requests)


def server_stream(request, context):
    for n in range(int(request)):
        yield b"%d" % n * 1000


def bidi(requests, context):
    yield b"hello"  # before the client has said anything
    for request in requests:
        yield request.upper()
    context.set_trailing_metadata((("x-count", "done"),))


def early(requests, context):
    next(requests)
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
    yield b""


def health(request, context):
    return b"\x08\x01"


def serve(ports, cert, key):
    unary_of = grpc.unary_unary_rpc_method_handler
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "t.Echo",
                {
                    "Unary": unary_of(unary),
                    "Fail": unary_of(fail),
                    "Hang": unary_of(hang),
                    "Client": grpc.stream_unary_rpc_method_handler(client_stream),
                    "Server": grpc.unary_stream_rpc_method_handler(server_stream),
                    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
                    "Early": grpc.stream_stream_rpc_method_handler(early),
                },
            ),
            grpc.method_handlers_generic_handler(
                "grpc.health.v1.Health", {"Check": unary_of(health)}
            ),
        )
    )
    secure = grpc.ssl_server_credentials([(open(key, "rb").read(), open(cert, "rb").read())])
    assert server.add_insecure_port(f"127.0.0.1:{ports[0]}") == ports[0]
    assert server.add_secure_port(f"127.0.0.1:{ports[1]}", secure) == ports[1]
    server.start()
    return server


def error(call):
    try:
        call()
    except grpc.RpcError as failure:
        return [failure.code().name, failure.details()]
    return "no error"


def drive(channel, prefix):
    done = {}

    def method(kind, name):
        return getattr(channel, kind)(f"{prefix}/t.Echo/{name}")

    big = bytes(range(256)) * 4096 * 3  # 3 MiB
    answer, call = method("unary_unary", "Unary").with_call(
        b"one", metadata=(("x-own", "kept"),), timeout=60
    )
    metadata = dict(call.trailing_metadata())
    done["unary"] = [
        answer.decode(),
        dict(call.initial_metadata()).get("x-first"),
        metadata["x-last"],
        metadata["x-last-bin"].hex(),
        "via" in dict(call.initial_metadata()),
    ]
    done["seen"] = [asked[-1].get("x-own"), "x-forwarded-for" in asked[-1]]
    done["big"] = method("unary_unary", "Unary")(big, timeout=60) == big
    done["many"] = [
        call.result() for call in [method("unary_unary", "Unary").future(b"%d" % n, timeout=60) for n in range(200)]
    ] == [b"%d" % n for n in range(200)]
    # 200 at once, at most 100 of them on a connection
    done["shared"] = len(peers) <= 4
    peers.clear()
    done["client"] = len(method("stream_unary", "Client")((b"x" * 1000 for _ in range(500)), timeout=60))
    done["server"] = sum(len(part) for part in method("unary_stream", "Server")(b"500", timeout=60))

    said = threading.Semaphore(0)

    def talk():
        for word in (b"a", b"b", b"c"):
            said.acquire()
            yield word

    call = method("stream_stream", "Bidi")(talk(), timeout=60)
    heard = []
    for word in call:
        heard.append(word.decode())
        said.release()
    done["bidi"] = [heard, dict(call.trailing_metadata()).get("x-count")]

    def fails():
        return method("unary_unary", "Fail")(b"", timeout=60)

    done["fail"] = error(fails)
    try:
        fails()
    except grpc.RpcError as failure:
        done["why"] = dict(failure.trailing_metadata()).get("x-why")
    done["early"] = error(lambda: list(method("stream_stream", "Early")(iter([b"x"] * 5), timeout=60)))
    cancelled.clear()
    done["deadline"] = error(lambda: method("unary_unary", "Hang")(b"", timeout=0.3))[0]
    done["deadline_seen"] = cancelled.wait(60)
    cancelled.clear()
    call = method("unary_unary", "Hang").future(b"", timeout=60)
    time.sleep(0.2)
    call.cancel()
    done["cancel_seen"] = cancelled.wait(60)
    done["nowhere"] = error(lambda: channel.unary_unary("/nowhere/t.Echo/Unary")(b"", timeout=60))
    several = channel.unary_unary("/several/t.Echo/Unary")
    done["several"] = [several(b"%d" % n, timeout=60) for n in range(20)] == [b"%d" % n for n in range(20)]
    done["dead"] = error(lambda: channel.unary_unary("/dead/t.Echo/Unary")(b"", timeout=60))
    done["key"] = error(lambda: channel.unary_unary("/key/t.Echo/Unary")(b"", timeout=60))
    done["with_key"] = (
        channel.unary_unary("/key/t.Echo/Unary")(b"in", timeout=60, metadata=(("apikey", "secret"),))
    ).decode()
    done["silent"] = error(lambda: channel.unary_unary("/silent/t.Echo/Hang")(b"", timeout=60))
    done["only_tls"] = error(lambda: channel.unary_unary("/secure/t.Echo/Unary")(b"s", timeout=60))
    return done


def main():
    asked_for = json.loads(sys.argv[1])
    cert, key = asked_for["cert"], asked_for["key"]
    server = serve(asked_for["serve"], cert, key)
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    secure = grpc.ssl_channel_credentials(open(cert, "rb").read())
    with (
        grpc.insecure_channel(f"127.0.0.1:{asked_for['plain']}", options) as plain,
        grpc.secure_channel(f"localhost:{asked_for['tls']}", secure, options) as tls,
    ):
        print(json.dumps({"plain": drive(plain, "/plain"), "tls": drive(tls, "/tls")}))
    server.stop(None)


main()
