"""Run the Python examples of README and docs with a running system and a real photo."""

import ast
import asyncio
import base64
import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from support.photos import photo
from support.programs.command import everything, safelight

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = {
    f"{page.relative_to(ROOT)}:{number}": code
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL), 1)
}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with everything(tmp_path_factory.mktemp("system") / "data", "--slots", 1) as found:
        yield found["master"]


@pytest.fixture(scope="module")
def key(master: str) -> str:
    done = safelight("keys", "create", "example", "--json", "--master", master)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["token"]


def run(code: str) -> dict[str, Any]:
    """Run an example, which may use `await` outside of a function."""
    names: dict[str, Any] = {}
    made = eval(compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if made is not None:
        asyncio.run(made)
    return names


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, master: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFELIGHT_API_KEY", key)
    (tmp_path / "photo.jpg").write_bytes(photo(70, kind="JPEG"))
    names = run(EXAMPLES[name].replace("localhost:8003", master))
    made = {path.name for path in tmp_path.iterdir()} - {"photo.jpg"}
    assert made or "save" not in EXAMPLES[name]
    if "Webhook" in names:
        check_verification(names["read"])


def check_verification(read: Any) -> None:
    """Check that the example accepts a signed call and refuses a changed one."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    now, body = datetime.now(UTC), '{"event": "task.finished"}'
    signature = Webhook(secret).sign("msg_1", now, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert read(secret, headers, body.encode()) == {"event": "task.finished"}
    with pytest.raises(WebhookVerificationError):
        read(secret, headers, b'{"event": "task.failed"}')


def test_there_are_examples() -> None:
    assert {"README.md:1", "docs/reference/api.md:1"} <= set(EXAMPLES)
