"""Test what `safelight up` prints where people need a key: the commands work as printed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.photos import photo
from support.programs.command import COMMAND, environment, safelight, terminal

pytestmark = pytest.mark.slow


def announced(text: str) -> dict[str, str]:
    """Return the lines about commands and addresses by their first word."""
    return dict(re.findall(r"^  (sign in|\w+)  +(.+?)\r?$", text[text.index("safelight is ready") :], re.MULTILINE))


def test_the_printed_commands_get_a_key_and_upload(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(photo(1))
    up = ("up", "--host", "0.0.0.0", "--port", 0, "--data", tmp_path / "data")
    with terminal(*up, columns=400) as shown:
        shown.until(lambda text: "\n  watch " in text)
        said = announced(shown.shown)
        create, _, login = said["key"].partition("; then ")
        master = login.rpartition(" ")[2]
        env = environment(PATH=f"{Path(COMMAND).parent}:{os.environ['PATH']}", XDG_CONFIG_HOME=str(tmp_path / "home"))

        def run(command: str, given: str = "") -> subprocess.CompletedProcess[str]:
            command = command.replace("PHOTO", "one.png").replace("NAME", "laptop")
            return subprocess.run(
                command, shell=True, cwd=tmp_path, env=env, input=given, capture_output=True, text=True, timeout=60
            )

        refused = run(f"{said['upload']} --master {master}")
        assert f"The master at {master} requires a key. Run `safelight login --master {master}`" in refused.stderr
        made = run(create)
        assert made.stdout.startswith("sl_"), made.stderr
        assert "Logged in" in run(login, made.stdout).stdout
        uploaded = run(said["upload"])
        assert uploaded.returncode == 0, uploaded.stderr
        assert list((tmp_path / "results").iterdir())
        shown.press(b"\x03")
        assert shown.ended() == 0


def test_behind_a_proxy_the_public_address_is_printed(tmp_path: Path) -> None:
    proxy = ("--public-url", "https://photos.example.org/x", "--trusted-proxies", "127.0.0.1")
    with terminal("up", "--port", 0, "--data", tmp_path / "data", "--workers", 0, *proxy, columns=400) as shown:
        shown.until(lambda text: "\n  watch " in text)
        said = announced(shown.shown)
        assert said["sign in"].startswith("https://photos.example.org/x/#/sign-in/")
        assert said["page"] == "https://photos.example.org/x/"
        assert said["key"].endswith("login --master https://photos.example.org/x")
        shown.press(b"\x03")
        assert shown.ended() == 0


def test_a_key_that_the_master_does_not_know_is_not_called_missing(tmp_path: Path) -> None:
    with terminal("up", "--host", "0.0.0.0", "--port", 0, "--data", tmp_path / "data", "--workers", 0) as shown:
        shown.until(lambda text: "\n  watch " in text)
        master = announced(shown.shown)["page"].removeprefix("http://").rstrip("/")
        refused = safelight("status", "--master", master, SAFELIGHT_API_KEY="sl_unknown")
        assert refused.returncode == 5
        assert "requires a key" not in refused.stderr
        shown.press(b"\x03")
        assert shown.ended() == 0
