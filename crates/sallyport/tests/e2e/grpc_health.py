"""A gRPC server of the `grpcio` library that says how it is. argv: port, ServingStatus or `none`."""

import sys
from concurrent import futures

import grpc

port, status = sys.argv[1:]
server = grpc.server(futures.ThreadPoolExecutor(4))
if status != "none":
    check = grpc.unary_unary_rpc_method_handler(lambda request, context: bytes([8, int(status)]))
    handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
    server.add_generic_rpc_handlers((handler,))
assert server.add_insecure_port(f"127.0.0.1:{port}") == int(port)
server.start()
print("serving", flush=True)
server.wait_for_termination()
