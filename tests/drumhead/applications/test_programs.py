"""Test programs without a runtime: from drumhead's packages, from a user's recipe, and a static binary."""

import re
import socket
import subprocess

import pytest

from support.guests.applications import get
from support.guests.machines import LIMIT, find, forwarded

pytestmark = pytest.mark.slow
NATIVE = "runtime: native\nconfig_set:\n  main: {{{}}}\n"


def ask(port, request, *, until):
    """Send a request; return the server's answer up to and including `until`."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        connection.sendall(request)
        answer = b""
        while not answer.endswith(until):
            received = connection.recv(4096)
            assert received, answer
            answer += received
    return answer


async def test_nginx_with_pages_and_a_server_of_ones_own(application):
    application.drumhead.package("nginx")
    application.write(
        {
            "usr/share/nginx/html/index.html": "<p>a page of the project</p>",
            "etc/nginx/conf.d/api.conf": "server { listen 8080; location / { return 200 'an answer of its own'; } }\n",
        },
        require="nginx",
        run=NATIVE.format("base: nginx:nginx"),
    )
    application.compose()
    async with application.running(80, "start worker process", "-f", "0:8080", memory="96M") as port:
        assert get(port) == "<p>a page of the project</p>"
        other = forwarded(find(application.drumhead, application.name), 8080)
        assert get(other) == "an answer of its own"


async def test_redis_keeps_what_it_acknowledged(application):
    application.drumhead.package("redis")
    application.write({}, require="redis", run=NATIVE.format("base: redis:redis"))
    application.compose()
    volume = ("--volume", f"{application.name}:/data:64M")
    async with application.running(6379, "Ready to accept connections", *volume, memory="96M") as port:
        assert ask(port, b"SET answer 42\r\n", until=b"\r\n") == b"+OK\r\n"
    async with application.running(6379, "Ready to accept connections", *volume, memory="96M") as port:
        assert ask(port, b"GET answer\r\n", until=b"42\r\n") == b"$2\r\n42\r\n"


@pytest.mark.heavy
async def test_postgresql_asks_for_the_password_that_it_was_given(application):
    application.drumhead.package("postgresql")
    application.write(
        {"secret": "it's a secret"},
        require="postgresql",
        run=NATIVE.format("base: 'postgresql:postgresql', env: {POSTGRES_PASSWORD_FILE: /secret}"),
    )
    application.compose()
    volume = ("--volume", f"{application.name}:/data:256M")
    query = "select 6 * 7, extract(hour from timestamptz '2026-07-01 12:00Z' at time zone 'Europe/Ljubljana')"
    async with application.running(5432, "database system is ready", *volume) as port:
        # The server's answer to SSLRequest (PostgreSQL's documentation, 55.2.10): one byte, N without TLS.
        assert ask(port, bytes.fromhex("0000000804d2162f"), until=b"N") == b"N"

        def psql(password):
            env = f"PGPASSWORD={password}"
            address = "host=127.0.0.1 user=postgres"
            return application.drumhead.run(
                "exec", "--env", env, application.name, "--", "psql", address, "-Atc", query
            )

        assert psql("it's a secret").stdout.strip() == "42|14"
        refused = psql("another")
        assert refused.returncode != 0
        assert "password authentication failed" in refused.stderr


SERVER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(8000)};
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    bind(listening, (struct sockaddr *)&here, sizeof here);
    listen(listening, 8);
    puts("listening");
    fflush(stdout);
    for (;;) {
        int one = accept(listening, 0, 0);
        char request[4096];
        if (read(one, request, sizeof request) > 0) {
            const char *answer = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nstatic";
            write(one, answer, strlen(answer));
        }
        close(one);
    }
}
"""


async def test_a_static_binary_and_nothing_else(application):
    application.write({"server.c": SERVER, ".drumheadignore": "/server.c\n"}, run=NATIVE.format("bootcmd: /server"))
    source = application.root / "server.c"
    subprocess.run(  # noqa: ASYNC221 - nothing else runs
        ["musl-gcc", "-static", "-O2", "-o", application.root / "server", source], check=True
    )
    application.compose()
    async with application.running(8000, "listening", memory="96M") as port:
        assert get(port) == "static"


async def test_a_go_program_from_a_recipe_of_ones_own(application):
    """Debian's caddy, with the recipe that `package new` writes."""
    root = application.root
    root.mkdir()
    application.drumhead("package", "new", "web", "--debian", "caddy", cwd=root)
    application.drumhead("package", "build", "--recipe", "web.yaml", cwd=root)
    command = "bootcmd: /usr/bin/caddy respond --listen 0.0.0.0:8000 --body 'from Go'"
    application.write({}, require="web", run=NATIVE.format(command))
    application.compose()
    async with application.running(8000, "Server address", memory="192M") as port:
        assert get(port) == "from Go"


BROKER = """\
  etc/mosquitto/mosquitto.conf: |
    listener 1883
    allow_anonymous true
    persistence true
    persistence_location /var/lib/mosquitto/
"""
BROKER_COMMAND = "/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf"
CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
"""MQTT 3.1.1, 3.1: a connection of the client a, which the broker accepts with 20 02 00 00."""


async def test_a_server_has_the_account_that_its_debian_package_creates(application):
    """Without it, mosquitto runs as nobody and cannot write its data."""
    root, drumhead = application.root, application.drumhead
    root.mkdir()
    drumhead("package", "new", "mosquitto", cwd=root)
    recipe = root / "mosquitto.yaml"
    recipe.write_text(recipe.read_text().replace("directories:", BROKER + "directories:"))
    drumhead("package", "build", "--recipe", "mosquitto.yaml", cwd=root)
    application.write({}, require="mosquitto, cli", run=NATIVE.format("bootcmd: " + BROKER_COMMAND))
    application.compose()
    async with application.running(1883, "mosquitto version 2.0.11 running", memory="96M") as port:
        assert ask(port, CONNECT, until=b"\x00\x00") == b"\x20\x02\x00\x00"
        said = drumhead(
            "exec", application.name, "--", "sh", "-c", "cat /proc/[0-9]*/status; stat -c %U /var/lib/mosquitto"
        )
    assert re.search(r"Name:\tmosquitto\n(.*\n)*?Uid:\t(?!0)", said)
    assert said.endswith("mosquitto\n")


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["java", "node-20", "node-22", "node-24"])
def test_the_demo_of_a_package_passes(drumhead, name):
    drumhead.package(name)
    assert drumhead.json("package", "test", name) == [{"package": name, "passed": True, "verdict": "passed"}]
