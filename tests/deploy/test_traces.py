"""Test a photo's trace: from the client's span over two masters, db, storage and two workers to result and webhook.

There is no collector of OpenTelemetry in Debian, PyPI or npm, so the receiver here decodes OTLP with OpenTelemetry's
own record definitions.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from safelight import serve
from support.photos import photo
from support.programs.processes import TIMEOUT, service
from support.programs.system import system
from support.servers import postgres

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENTS = {
    "upload": {"the client"},
    "store original": {"upload"},
    "create task": {"upload"},
    "commit task": {"create task"},
    "lease": {"create task"},
    "fetch": {"lease"},
    "process": {"lease"},
    "store result": {"lease"},
    "POST /shared": {"store original", "store result"},
    "settle": {"lease"},
    "webhook": {"create task"},
}
SERVICES = {
    **dict.fromkeys(("upload", "store original", "create task", "webhook"), "safelight-master"),
    "POST /shared": "safelight-storage",
    **dict.fromkeys(("lease", "fetch", "process", "store result", "settle"), "safelight-worker"),
    "commit task": "safelight-db",
}


class Collector:
    """Receive spans by OTLP over HTTP, and webhook calls."""

    def __init__(self) -> None:
        self.spans: list = []
        self.called: list[str | None] = []
        self.more = asyncio.Condition()
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Collector"]:
        collector = cls()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/traces", collector.take)
        app.router.add_post("/hook", collector.hook)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield collector
        finally:
            await runner.cleanup()

    async def take(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # from the extra

        for resource in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            of = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(of["service.name"], span) for span in scope.spans]
        async with self.more:
            self.more.notify_all()
        return web.Response()

    async def hook(self, request: web.Request) -> web.Response:
        self.called.append(request.headers.get("traceparent"))
        return web.Response()

    def trace(self, number: str) -> list:
        return [(service, span) for service, span in self.spans if span.trace_id.hex() == number]

    async def wait_for(self, number: str, names: set[str]) -> list:
        def missing() -> set[str]:
            return names - {span.name for _, span in self.trace(number)}

        try:
            async with asyncio.timeout(TIMEOUT), self.more:
                await self.more.wait_for(lambda: not missing())
        except TimeoutError:
            pytest.fail(f"no span of {missing()}, but {sorted({span.name for _, span in self.spans})}")
        return self.trace(number)

    async def wait_for_files(self, number: str) -> list:
        """Wait for the spans in which storage takes the two files of a photo and its result."""
        async with asyncio.timeout(TIMEOUT), self.more:
            await self.more.wait_for(lambda: [span.name for _, span in self.trace(number)].count("POST /shared") == 2)
        return self.trace(number)


@asynccontextmanager
async def traced(path: Path, backend: str) -> AsyncIterator[tuple[Collector, aiohttp.ClientSession, list[str]]]:
    """Run a tracing system with two masters and two workers; yield a collector, a session and the masters' URLs."""
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(Collector.open())
        environment = {
            "SAFELIGHT_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        kinds = ("keyvaluestore", "db", "storage", "master", "worker")
        settings = {"master": ["--webhook-allow-private"], "worker": ["--slots", "1"]}
        if backend == "postgresql":
            settings["db"] = ["--store", stack.enter_context(postgres.server()).url()]
        environments = dict.fromkeys(kinds, environment)
        whole = await stack.enter_async_context(system(path, workers=2, settings=settings, environments=environments))
        words = [whole.keyvaluestore, "--data", str(path / "master-2"), "--webhook-allow-private"]
        second = await stack.enter_async_context(service("master", *words, env=environment))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield collector, http, [f"http://{whole.master}", await second.address()]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_one_trace_from_the_upload_to_the_result(tmp_path: Path, backend: str) -> None:
    async with traced(tmp_path, backend) as (collector, http, masters):
        for number, master in enumerate(masters):
            trace = TRACE[:-1] + str(number)
            form = aiohttp.FormData({"webhook": f"{collector.url}/hook"})
            form.add_field("image", photo(number), filename="a.jpg")
            sent = {"traceparent": f"00-{trace}-{CLIENT}-01"}
            async with http.post(f"{master}/task", data=form, headers=sent) as answer:
                assert answer.status == 200, await answer.text()
                assert "traceparent" not in await answer.json()
            await collector.wait_for(trace, set(PARENTS))
            judge(await collector.wait_for_files(trace))
        assert [called and called.split("-")[1] for called in collector.called] == [TRACE[:-1] + "0", TRACE[:-1] + "1"]
        await resumable(collector, http, masters)
        form = aiohttp.FormData()
        form.add_field("image", photo(7), filename="a.jpg")
        async with http.post(f"{masters[0]}/task", data=form) as answer:  # without a client's trace
            assert answer.status == 200
        async with asyncio.timeout(TIMEOUT), collector.more:
            await collector.more.wait_for(lambda: any(not span.parent_span_id for _, span in collector.spans))
        (root,) = [span for _, span in collector.spans if not span.parent_span_id]
        assert root.name == "upload"
        await collector.wait_for(root.trace_id.hex(), set(PARENTS) - {"webhook"})
    loops = {"POST /lease", "POST /heartbeat", "POST /outcomes", "GET /events", "GET /deliveries", "GET /healthz"}
    assert not loops & {span.name for _, span in collector.spans}, "only photos must be traced"


async def resumable(collector: Collector, http: aiohttp.ClientSession, masters: list[str]) -> None:
    """Upload two halves by tus to two masters; in the single trace, the second half creates the task."""
    trace, data = TRACE[:-1] + "2", photo(5)
    half = len(data) // 2
    sent = {"traceparent": f"00-{trace}-{CLIENT}-01", "Tus-Resumable": "1.0.0"}
    opened = {**sent, "Upload-Length": str(len(data)), "Content-Type": "application/offset+octet-stream"}
    async with http.post(f"{masters[0]}/uploads", data=data[:half], headers=opened) as answer:
        assert answer.status == 201, await answer.text()
        path = URL(answer.headers["Location"]).path
    rest = {**sent, "Upload-Offset": str(half), "Content-Type": opened["Content-Type"]}
    async with http.patch(masters[1] + path, data=data[half:], headers=rest) as answer:
        assert answer.status == 204, await answer.text()
    wanted = {"upload", "create task", "commit task", "lease", "fetch", "process", "store result", "settle"}
    await collector.wait_for(trace, wanted)
    async with asyncio.timeout(TIMEOUT), collector.more:  # each master sends its spans itself
        await collector.more.wait_for(lambda: [span.name for _, span in collector.trace(trace)].count("upload") == 2)
    found = [span for _, span in collector.trace(trace)]
    uploads = [span for span in found if span.name == "upload"]
    assert [span.parent_span_id.hex() for span in uploads] == [CLIENT] * 2
    last = max(uploads, key=lambda span: span.start_time_unix_nano)
    (created,) = [span for span in found if span.name == "create task"]
    assert created.parent_span_id == last.span_id
    for name, parent in (("commit task", "create task"), ("lease", "create task"), ("settle", "lease")):
        (of,) = [span for span in found if span.name == parent]
        assert [span.parent_span_id for span in found if span.name == name] == [of.span_id]


def judge(trace: list) -> None:
    """Check the parent of each span, and the service that made it."""
    names = {span.span_id.hex(): span.name for _, span in trace} | {CLIENT: "the client"}
    for of, span in trace:
        parent = names[span.parent_span_id.hex()]
        if span.name in PARENTS:  # other requests between services also belong to the trace
            assert parent in PARENTS[span.name], span.name
            assert of == SERVICES[span.name]
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    files = [names[span.parent_span_id.hex()] for _, span in trace if span.name == "POST /shared"]
    assert sorted(files) == ["store original", "store result"]
    once = [span.name for _, span in trace if span.name in PARENTS and span.name != "POST /shared"]
    assert sorted(once) == sorted(set(once))


@pytest.mark.slow
def test_nothing_of_opentelemetry_is_loaded_without_traces() -> None:
    names = ("keyvaluestore", "db", "storage", "master", "worker")
    modules = ", ".join(f"safelight.{name}.__main__" for name in names)
    program = f"import sys, {modules}; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_value_that_opentelemetry_refuses_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-1")
    with pytest.raises(SystemExit) as ended:
        serve.trace("db", serve.StandaloneConfig(traces=True))
    assert ended.value.code == 2
    assert "a variable OTEL_… has a value that cannot be used: schedule_delay" in capsys.readouterr().err
