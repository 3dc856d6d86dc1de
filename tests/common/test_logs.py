"""Test which log lines a process writes that runs several services."""

import logging

import pytest

from safelight import logs

SAYS = {
    "db": "safelight.db.app",
    "storage": "safelight.storage.app",
    "master": "safelight.client.base",  # shared code, which logs for the service whose context it runs in
    "nobody": "asyncio",
}


@pytest.fixture(autouse=True)
def given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the process its log back afterwards."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers)
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logs, "_shown_to_people", False)
    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "filters", [])
    monkeypatch.setattr(logging.getLogger("asyncio"), "level", logging.NOTSET)


def test_each_service_of_a_process_has_its_own_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("allinone", "text", several={"db": "error", "storage": "debug", "master": "warning"})
    for name, logger in SAYS.items():
        logs.service.set(name if name == "master" else "")
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(logger).log(level, "%s %s", name, logging.getLevelName(level))
    said = [line.rpartition("\t")[2].rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "db ERROR",
        *(f"storage {level}" for level in ("DEBUG", "INFO", "WARNING", "ERROR")),
        *("master WARNING", "master ERROR"),
        *("nobody WARNING", "nobody ERROR"),
    ]
