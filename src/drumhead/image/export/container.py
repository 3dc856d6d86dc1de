"""Write an image as container images, in an OCI layout that podman, skopeo and docker read.

The kernel and the init are left out; every layer becomes a tar. Each service is an image of its own in the layout and
shares the layers with the others: a runtime has no config sets, so the command belongs to the image.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from drumhead import host
from drumhead.blobs import Blobs, replacing
from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drumhead.home import Home
    from drumhead.records import Command, Image, Layer

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
DEFAULT_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LANG": "C.UTF-8"}
"""What the guest's init gives every command."""
CREATED = "1970-01-01T00:00:00Z"
"""The same image gives the same bytes at any time."""
WHITEOUT = ".wh."
"""Names that start so mean a deletion in a container's layer."""
COMPRESSION = 6
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
"""Programs of an image that can ask a service for its health, by path."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """When a service is healthy: a GET of `path` on its `port` answers 2xx."""

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


@dataclass(frozen=True, kw_only=True)
class _Blob:
    digest: str
    size: int
    diff_id: str = ""
    """The digest of the layer's tar, uncompressed."""


def write_container(home: Home, image: Image, services: Sequence[Service], user: str, out: Path) -> list[str]:
    """Write an OCI layout with an image for each service into the directory `out`; return notices. Blocks.

    `user` is ``UID:GID``; the volumes of all services are directories of theirs in every image. Raises UNSUPPORTED (an
    image for OSv, a file that no layer can hold), USAGE (no services), HOST_TOOL, NOT_FOUND.
    """
    if image.guest != "linux":
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"{image.name} is composed for {image.guest}; containers run Linux programs: compose it with --guest linux",
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
    image: Image, services: Sequence[Service], user: str, layers: list[_Blob], paths: set[str], out: Path
) -> list[str]:
    """Write the configuration and the manifest of each service, and the index over them; return notices."""
    notices, manifests = [], []
    for service in services:
        probe = next((words for path, words in PROBES.items() if path in paths), ())
        if service.health and not probe:
            notices.append(f"{service.name} has no health check: the image has no Python, Node.js or wget to ask with")
        config = _put(out, _encode(_config(image, service, user, layers, probe)))
        manifest = _put(out, _encode(_manifest(image, config, layers)))
        manifests.append(
            {
                **_descriptor(manifest, MANIFEST_TYPE),
                "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": service.name},
            }
        )
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
    for name, document in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with replacing(out / name) as temporary:
            temporary.write_bytes(_encode(document))
    return notices


def _config(
    image: Image, service: Service, user: str, layers: list[_Blob], probe: tuple[str, ...]
) -> dict[str, object]:
    command = service.command
    config: dict[str, object] = {
        "User": user,
        "Env": [f"{name}={value}" for name, value in {**DEFAULT_ENV, **command.env}.items()],
        "Entrypoint": list(command.argv),
        "WorkingDir": command.cwd,
        "StopSignal": "SIGTERM",
        "Labels": {"org.opencontainers.image.title": image.title, "org.opencontainers.image.version": image.version},
    }
    if service.ports:
        config["ExposedPorts"] = {port: {} for port in service.ports}
    if service.volumes:
        config["Volumes"] = {path: {} for path in service.volumes}
    if service.health and probe:
        # Not in OCI's own list of fields: Docker reads it, and so does podman from an image in Docker's format.
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
    return {
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
    }


def _manifest(image: Image, config: _Blob, layers: list[_Blob]) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(config, CONFIG_TYPE),
        "layers": [_descriptor(layer, LAYER_TYPE) for layer in layers],
        "annotations": {
            "org.opencontainers.image.title": image.title,
            "org.opencontainers.image.version": image.version,
        },
    }


def _descriptor(blob: _Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{blob.digest}", "size": blob.size}


def _encode(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _put(out: Path, contents: bytes) -> _Blob:
    digest = hashlib.sha256(contents).hexdigest()
    with replacing(out / "blobs" / "sha256" / digest) as temporary:
        temporary.write_bytes(contents)
    return _Blob(digest=digest, size=len(contents))


def _write_layer(file: Path, layer: Layer, out: Path, paths: set[str]) -> _Blob:
    """Write a layer as a compressed tar, and add its paths to `paths`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch, _LayerWriter(out) as writer:
        root = Path(scratch) / "root"
        if layer.filesystem == "erofs":
            host.run(["fsck.erofs", f"--extract={root}", file])
        else:
            host.run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", root, file])
        for path in _walk(root):
            name = path.relative_to(root).as_posix()
            if path.name.startswith(WHITEOUT):
                raise DrumheadError(
                    ErrorCode.UNSUPPORTED, f"/{name} cannot be in a container: {WHITEOUT} means a deletion there"
                )
            paths.add(name)
            writer.add(path, name)
        return writer.finish()


def _write_mount_points(volumes: list[str], user: str, out: Path) -> _Blob:
    """Write a layer with a directory of `user` for each volume; a runtime gives a new volume its owner and mode."""
    uid, _, gid = user.partition(":")
    with _LayerWriter(out) as writer:
        for volume in volumes:
            writer.add_directory(volume, int(uid), int(gid or uid))
        return writer.finish()


def _walk(root: Path) -> list[Path]:
    """Return everything below `root`, parents first, in an order that does not depend on the host."""
    found = []
    for folder, directories, files in os.walk(root):
        found += [Path(folder) / name for name in (*directories, *files)]
    return sorted(found, key=lambda path: path.parts)


class _LayerWriter:
    """Writes a tar through gzip into the layout's blobs. Root owns everything; there are no times."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._out, prefix=".layer-")
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb")
        self._gzip = gzip.GzipFile("", "wb", COMPRESSION, self._file, mtime=0)
        self._plain = _Hashing(self._gzip)
        self._tar = tarfile.open(fileobj=self._plain, mode="w|", format=tarfile.PAX_FORMAT)  # type: ignore[call-overload]
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, path: Path, name: str) -> None:
        """Add one file, directory or symbolic link."""
        facts = path.lstat()
        info = tarfile.TarInfo(name)
        info.mode = facts.st_mode & 0o7777
        if path.is_symlink():
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            self._tar.addfile(info)
        elif path.is_dir():
            info.type = tarfile.DIRTYPE
            self._tar.addfile(info)
        else:
            info.size = facts.st_size
            with path.open("rb") as contents:
                self._tar.addfile(info, contents)

    def add_directory(self, name: str, uid: int, gid: int) -> None:
        """Add a private directory of a user."""
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o700, uid, gid
        self._tar.addfile(info)

    def finish(self) -> _Blob:
        """Complete the layer and move it to the blobs."""
        self._tar.close()
        self._gzip.close()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        blob = _Blob(digest=digest, size=self._path.stat().st_size, diff_id=self._plain.hash.hexdigest())
        place = self._out / "blobs" / "sha256" / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o644)
        self._path.replace(place)
        return blob


class _Hashing:
    """Passes what is written on, and hashes it."""

    def __init__(self, out: gzip.GzipFile) -> None:
        self._out = out
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._out.write(data)
