"""Write an image as container images, in an OCI layout that podman, skopeo and docker read.

The kernel and the init are left out; every layer becomes a tar. Container runtimes know no config sets, so each service
is a separate image of the layout with its own command. These images share their layers.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import Blobs
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.squashfs import Attributes, squashfs_attributes
from drumhead.image.export.layout import (
    REFERENCE,
    LayerWriter,
    LayoutBlob,
    config_of,
    encode,
    entry,
    manifest_of,
    put,
    write_index,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drumhead.home import Home
    from drumhead.records import Command, Image, Layer

DEFAULT_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LANG": "C.UTF-8"}
"""The variables that the guest's init gives to every command."""
WHITEOUT = ".wh."
"""The prefix of names that mark a deletion in a container's layer."""
SECOND = 1_000_000_000
ASK_BY_PYTHON = """\
import socket
ask = socket.create_connection(("127.0.0.1", {port}), 5)
ask.sendall(b"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
raise SystemExit(ask.recv(16)[9:10] != b"2")
"""
ASK_BY_NODE = """\
const end = answer => process.exit(answer.statusCode > 299 ? 1 : 0)
require("http").get("http://127.0.0.1:{port}{path}", end).on("error", () => process.exit(1))
"""
PROBES = {
    "usr/bin/python3": ("/usr/bin/python3", "-ISc", ASK_BY_PYTHON),
    "usr/bin/node": ("/usr/bin/node", "-e", ASK_BY_NODE),
    "usr/bin/wget": ("/usr/bin/wget", "-q", "-T", "5", "-O", "/dev/null", "http://127.0.0.1:{port}{path}"),
}
"""Health checks by the path of a program that can run them, if the image has it."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """A health check: a service is healthy if a GET of `path` on its `port` answers 2xx."""

    port: int
    path: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """One image of the layout. `name` is its reference there; `ports` are like ``8000/tcp``."""

    name: str
    command: Command
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    health: Health | None = None


def write_container(home: Home, image: Image, services: Sequence[Service], user: str, out: Path) -> list[str]:
    """Write an OCI layout with an image for each service into the directory `out`, and return notices.

    `user` is ``UID:GID``; every image has the volumes of all services as directories of this user. This blocks the
    calling thread. Raises UNSUPPORTED (an image for OSv, a file that no layer can hold), USAGE (no services),
    HOST_TOOL, NOT_FOUND.
    """
    if image.guest != "linux":
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"{image.name} was composed for {image.guest}; compose it with --guest linux for containers",
        )
    if not services:
        raise DrumheadError(
            ErrorCode.USAGE, f"{image.name} has no config set, and a container needs a command; add one to run.yaml"
        )
    paths: set[str] = set()
    blobs = Blobs(home)
    kernel = f"{image.kernel.package} {image.kernel.version}"
    layers = [
        _write_layer(blobs.verified(layer.blob.digest), layer, out, paths)
        for layer in image.layers
        if (layer.kind, layer.name) != ("package", kernel)
    ]
    volumes = sorted({path.strip("/") for service in services for path in service.volumes})
    if volumes:
        layers.append(_write_mount_points(volumes, user, out))
    return _write_index(image, services, user, layers, paths, out)


def _write_index(
    image: Image, services: Sequence[Service], user: str, layers: list[LayoutBlob], paths: set[str], out: Path
) -> list[str]:
    """Write the configuration and the manifest of each service and the index, and return notices."""
    notices, manifests = [], []
    for service in services:
        probe = next((words for path, words in PROBES.items() if path in paths), ())
        if service.health and not probe:
            notices.append(
                f"{service.name} has no health check, because the image has no Python, Node.js or wget to run it"
            )
        if not REFERENCE.fullmatch(service.name):
            notices.append(
                f"skopeo and podman do not find {service.name!r} in the layout by this name; name it with letters and "
                "digits, with single . _ - or / inside"
            )
        config = put(out, encode(_config(image, service, user, layers, probe)))
        manifest = put(out, encode(manifest_of(config, layers, _annotations(image))))
        manifests.append(entry(manifest, service.name))
    write_index(out, manifests)
    return notices


def _config(
    image: Image, service: Service, user: str, layers: list[LayoutBlob], probe: tuple[str, ...]
) -> dict[str, object]:
    command = service.command
    config: dict[str, object] = {
        "User": user,
        "Env": [f"{name}={value}" for name, value in {**DEFAULT_ENV, **command.env}.items()],
        "Entrypoint": list(command.argv),
        "WorkingDir": command.cwd,
        "StopSignal": "SIGTERM",
        "Labels": _annotations(image),
    }
    if service.ports:
        config["ExposedPorts"] = {port: {} for port in service.ports}
    if service.volumes:
        config["Volumes"] = {path: {} for path in service.volumes}
    if service.health and probe:
        # OCI does not define this field. Docker reads it, and so does podman from an image in Docker's format.
        ask = [
            word.replace("{port}", str(service.health.port)).replace("{path}", service.health.path) for word in probe
        ]
        config["Healthcheck"] = {
            "Test": ["CMD", *ask],
            "Interval": 10 * SECOND,
            "Timeout": 6 * SECOND,
            "StartPeriod": 120 * SECOND,
            "Retries": 3,
        }
    return config_of(layers, config)


def _annotations(image: Image) -> dict[str, str]:
    return {"org.opencontainers.image.title": image.title, "org.opencontainers.image.version": image.version}


def _write_layer(file: Path, layer: Layer, out: Path, paths: set[str]) -> LayoutBlob:
    """Write a layer as a compressed tar, and add its paths to `paths`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch, LayerWriter(out) as writer:
        root = Path(scratch) / "root"
        known: dict[str, Attributes] = {}
        if layer.filesystem == "erofs":  # all of it belongs to root, and a new owner would clear setuid
            host.run(["fsck.erofs", f"--extract={root}", "--no-preserve-owner", "--preserve-perms", file])
        else:
            host.run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", root, file])
            known = squashfs_attributes(file)
        for path, mode in _walk(root):
            name = path.relative_to(root).as_posix()
            if path.name.startswith(WHITEOUT):
                raise DrumheadError(
                    ErrorCode.UNSUPPORTED,
                    f"/{name} cannot be in a container, where names with {WHITEOUT} mark deletions",
                )
            paths.add(name)
            writer.add(path, name, known.get(name, Attributes(mode)))
        return writer.finish()


def _write_mount_points(volumes: list[str], user: str, out: Path) -> LayoutBlob:
    """Write a layer with a directory of `user` for each volume. A runtime copies its owner and mode to a new volume."""
    uid, _, gid = user.partition(":")
    with LayerWriter(out) as writer:
        for volume in volumes:
            writer.add_directory(volume, int(uid), int(gid or uid))
        return writer.finish()


def _walk(root: Path) -> list[tuple[Path, int]]:
    """Return everything below `root` with its mode, parents first, in an order that does not depend on the host.

    All of it becomes readable for this user.
    """
    found = []
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(directory) / name
            mode = path.lstat().st_mode
            found.append((path, stat.S_IMODE(mode)))
            if not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode) | 0o500)
    return sorted(found, key=lambda one: one[0].parts)
