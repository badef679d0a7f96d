"""An OTLP/HTTP receiver that shares nothing with the sender but opentelemetry-proto.

Usage: collector.py PORT [CERTIFICATE KEY CLIENT_CA] -- prints a JSON line for each request. Its first
answer is 503, so the sender has to come again.
"""
import http.server
import json
import ssl
import sys

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.metrics.v1 import metrics_pb2


def value(of):
    return getattr(of, of.WhichOneof("value"))


def attributes(of):
    return {pair.key: value(pair.value) for pair in of.attributes}


def shown(request):
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                delta = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
                for point in data.data_points:
                    told = {
                        "metric": metric.name,
                        "unit": metric.unit,
                        "kind": kind,
                        "delta": data.aggregation_temporality == delta,
                        "attributes": attributes(point),
                        "ordered": 0 < point.start_time_unix_nano <= point.time_unix_nano,
                    }
                    if kind == "exponential_histogram":
                        told["scale"] = point.scale
                        told["count"] = point.count
                        told["sum"] = point.sum
                        buckets = list(point.positive.bucket_counts)
                        told["in_buckets"] = sum(buckets) + point.zero_count
                        # the largest value lies within the last bucket
                        last = point.positive.offset + len(buckets)
                        told["below"] = (2 ** (2 ** -point.scale)) ** last
                    else:
                        told["value"] = point.as_int
                        told["monotonic"] = data.is_monotonic
                    yield told


def has_unknown_fields(request):
    before = request.ByteSize()
    request.DiscardUnknownFields()
    return request.ByteSize() != before


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answered = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = service.ExportMetricsServiceRequest.FromString(body)
        again = Handler.answered == 0
        Handler.answered += 1
        peer = self.connection.getpeercert() if hasattr(self.connection, "getpeercert") else None
        print(json.dumps({
            "path": self.path,
            "type": self.headers["Content-Type"],
            "batch": self.headers["Sallyport-Batch"],
            "host": self.headers["Host"],
            "has_certificate": bool(peer),
            "refused": again,
            "unknown_fields": has_unknown_fields(request),
            "resource": [attributes(it.resource) for it in request.resource_metrics],
            "points": list(shown(request)),
        }), flush=True)
        self.send_response(503 if again else 200)
        answer = b"" if again else service.ExportMetricsServiceResponse().SerializeToString()
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    context.load_verify_locations(sys.argv[4])
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("collector ready", flush=True)
server.serve_forever()
