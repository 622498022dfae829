"""Takes OTLP over gRPC and writes down what came: see README.md."""

import argparse
import json
import os
import sys
from concurrent import futures

import grpc
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


def value(any_value):
    kind = any_value.WhichOneof("value")
    return None if kind is None else getattr(any_value, kind)


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def check_known(message):
    if len(UnknownFieldSet(message)):
        raise ValueError(f"unknown fields in {message.DESCRIPTOR.full_name}")
    for field, content in message.ListFields():
        if field.message_type is not None:
            for inner in content if field.is_repeated else [content]:
                check_known(inner)


def spans(request):
    check_known(request)
    for of_resource in request.resource_spans:
        resource = attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                if len(span.trace_id) != 16 or len(span.span_id) != 8 or len(span.parent_span_id) not in (0, 8):
                    raise ValueError("an identifier of a wrong length")
                if not span.name or not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
                    raise ValueError(f"a span without name or with wrong times: {span.name}")
                yield {
                    "resource": resource,
                    "service": resource.get("service.name"),
                    "name": span.name,
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_span_id": span.parent_span_id.hex(),
                    "kind": trace_pb2.Span.SpanKind.Name(span.kind),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "events": len(span.events),
                    "status": trace_pb2.Status.StatusCode.Name(span.status.code),
                }


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, arguments):
        self.arguments = arguments

    def Export(self, request, context):
        wanted = self.arguments.want_header
        if wanted and tuple(wanted.split("=", 1)) not in set(context.invocation_metadata()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a header is missing")
        try:
            lines = [json.dumps(span) for span in spans(request)]
        except ValueError as error:
            print(f"REFUSED: {error}", flush=True)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        with open(self.arguments.raw, "ab") as raw:
            raw.write(request.SerializeToString())
        with open(self.arguments.out, "a", encoding="utf-8") as out:
            out.write("".join(line + "\n" for line in lines))
        return trace_service_pb2.ExportTraceServiceResponse()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--raw", required=True)
    parser.add_argument("--ready-file", required=True)
    parser.add_argument("--want-header")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    arguments = parser.parse_args()
    # One worker: requests are written down one after another.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(arguments), server)
    if arguments.tls_cert:
        with open(arguments.tls_key, "rb") as key, open(arguments.tls_cert, "rb") as certificate:
            credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    open(arguments.out, "a", encoding="utf-8").close()
    server.start()
    with open(arguments.ready_file + ".new", "w", encoding="utf-8") as ready:
        json.dump({"port": port}, ready)
    os.replace(arguments.ready_file + ".new", arguments.ready_file)
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
