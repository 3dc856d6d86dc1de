"""Test deploy/prometheus and deploy/grafana with Debian's Prometheus, which checks the rules and scrapes a system."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import aiohttp
import pytest
import yaml

from safelight.client.master import Client
from support.photos import photo
from support.programs.ports import free_port
from support.programs.system import SERVICES, system

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yaml"
RUNBOOK = DEPLOY.parent / "docs/guide/runbook.md"
LIMIT = 90.0


def rules():
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def queries():
    """Return all queries of the dashboard, by panel."""
    for panel in json.loads((DEPLOY / "grafana/safelight.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']}: {target['legendFormat']}", target["expr"].replace("$__rate_interval", "8s")


@pytest.mark.slow
def test_promtool_accepts_the_rules_and_each_alert_fires_when_it_must():
    for words in (["check", "rules", RULES], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(
            ["promtool", *words], cwd=RULES.parent, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tested = {one["name"] for one in yaml.safe_load((RULES.parent / "alerts.test.yaml").read_text())["tests"]}
    assert tested == {rule["alert"] for rule in rules()}


@pytest.mark.slow
def test_pods_on_kubernetes_are_scraped_under_the_names_of_the_jobs(tmp_path):
    """Debian's Prometheus cannot discover pods, so it is given what it would discover."""
    config = yaml.safe_load((DEPLOY / "prometheus/kubernetes.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    del scrape["authorization"], config["rule_files"]  # files that are not here
    meta = "__meta_kubernetes_"
    common = {f"{meta}pod_label_app_kubernetes_io_name": "safelight", f"{meta}namespace": "lab"}
    names = (*SERVICES, "worker")
    ports = [(name, "http", "Running", True) for name in names]
    ports += [("db", "http", "Succeeded", False), ("db", "other", "Running", False)]
    scrape["static_configs"] = [
        {
            "targets": [f"10.0.0.{number}:8000"],
            "labels": {
                **common,
                f"{meta}pod_label_app_kubernetes_io_component": component,
                f"{meta}pod_container_port_name": port,
                f"{meta}pod_phase": phase,
            },
        }
        for number, (component, port, phase, _) in enumerate(ports)
    ]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        ["promtool", "check", "service-discovery", file, "safelight", "--timeout=2s"],
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    found = [one["labels"].get("job") for one in json.loads(done.stdout)]
    assert sorted(filter(None, found)) == sorted(f"safelight-{name}" for name in names), done.stderr


def test_the_runbook_has_every_alert():
    headings = re.findall(r"^## (Safelight\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/guide/runbook.md#{rule['alert'].lower()}"


class Prometheus:
    def __init__(self, http, port):
        self._http = http
        self._url = f"http://127.0.0.1:{port}/api/v1/query"

    async def ask(self, query):
        """Return the number of series that a query gives; an error fails the test."""
        async with self._http.get(self._url, params={"query": query}) as answer:
            told = await answer.json()
        assert told["status"] == "success", f"{query}: {told}"
        return [one for one in told["data"]["result"] if one["value"][1] != "NaN"]


async def until_all(prometheus, wanted):
    """Wait until every query gives a result, since scrapes and rates take some time."""
    async with asyncio.timeout(LIMIT):
        while missing := [name for name, query in wanted if not await prometheus.ask(query)]:
            yield missing
            await asyncio.sleep(0.5)


def configuration(places):
    """Return our configuration for Prometheus, with services at other places."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [places[job["job_name"].removeprefix("safelight-")]]}]
        job.pop("authorization")
    return yaml.safe_dump(config)


@pytest.mark.slow
async def test_every_query_has_results_in_a_real_system(tmp_path):
    async with system(tmp_path / "data", workers=1) as whole, Client.connect(whole.master) as client:
        worker = (await whole.running["worker-0"].address()).removeprefix("http://")
        places = {name: f"127.0.0.1:{whole.ports[name]}" for name in SERVICES} | {"worker": worker}
        file, port = tmp_path / "prometheus.yaml", free_port()
        file.write_text(configuration(places))
        server = await asyncio.create_subprocess_exec(
            *("prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/series"),
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LIMIT):
                while b"ready to receive" not in (line := await server.stderr.readline()):
                    assert line, "Prometheus has ended"
            rest = asyncio.create_task(server.stderr.read())
            async with aiohttp.ClientSession() as http:
                prometheus = Prometheus(http, port)
                number = 0
                async for _missing in until_all(prometheus, list(queries())):
                    number += 1
                    task = await client.upload(photo(number), filename=f"{number}.png")
                    await client.wait(task.id, timeout=LIMIT)
                for rule in rules():
                    await prometheus.ask(rule["expr"])
                known = {one["metric"]["__name__"] for one in await prometheus.ask('{__name__=~"safelight_.*"}')}
        finally:
            server.terminate()
            await server.wait()
        await rest
    silent = {
        *("safelight_uploads_refused_total", "safelight_worker_decoder_restarts_total"),
        "safelight_backend_reachable",  # only of distributed backends
    }
    for rule in rules():
        for name in re.findall(r"safelight_\w+", rule["expr"]):
            assert name in known | silent, f"{rule['alert']} uses {name}, which no service reports"
