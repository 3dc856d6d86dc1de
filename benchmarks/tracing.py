"""Measure the processor time of a span in a program that does not trace, and in one that traces and exports.

    python -m benchmarks.tracing [--spans 2000] [--runs 5]

The same run also measures the loop without the calls. A span includes the header that goes to another service. The
collector is a process that answers without reading the spans. The table shows medians of alternating runs.
"""

import argparse
import http.server
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

from safelight import tracing

SPANS = 14
"""The spans of a photo from its upload to its result and one webhook; tests/deploy/test_traces.py names twelve."""


class Collector(http.server.BaseHTTPRequestHandler):
    """Answer every request at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def collect(port: "multiprocessing.connection.Connection") -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    port.send(server.server_port)
    server.serve_forever()


def spans(count: int) -> None:
    for _ in range(count):
        with tracing.span("store original", root=True):
            tracing.headers()


def nothing(count: int) -> None:
    for _ in range(count):
        pass


def measure(call: Callable[[int], None], count: int, *, pause: float = 0.0) -> float:
    """Return the microseconds of processor time for each of `count` spans, in batches that fit the exporter's queue."""
    began = time.process_time()
    for _ in range(0, count, 500):
        call(500)
        time.sleep(pause)
    return (time.process_time() - began) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    mine, its = multiprocessing.Pipe()
    collector = multiprocessing.Process(target=collect, args=(its,), daemon=True)
    collector.start()
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{mine.recv()}"
    rounds = [(measure(nothing, 50 * given.spans), measure(spans, 50 * given.spans)) for _ in range(given.runs)]
    loop, off = (statistics.median(column) for column in zip(*rounds, strict=True))
    tracing.start("benchmark", "0")
    on = statistics.median(measure(spans, given.spans, pause=0.3) for _ in range(given.runs))
    print("| | µs a span | µs a photo |\n| --- | --- | --- |")
    for name, found in (("without the calls", loop), ("off", off), ("on, with the export", on)):
        print(f"| {name} | {found:.2f} | {found * SPANS:.1f} |")
    collector.terminate()


if __name__ == "__main__":
    main()
