"""Find the Debian mirrors from ``DRUMHEAD_DEBIAN_MIRROR`` or the host's apt configuration."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path

import msgspec

from drumhead import host
from drumhead.errors import DrumheadError, ErrorCode

RELEASE = "bookworm"
"""The Debian release that the recipes are written for: kernel 6.1, Python 3.11, Node.js 18."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MAIN_INDEX = re.compile("'([^']+)/dists/([^']+)/main/binary-amd64/Packages")
_MIRRORS = "mirror+file:"
_ARCHIVE, _SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """One signed index of an archive: ``URI/dists/NAME/InRelease``. `uri` ends without a slash."""

    uri: str
    name: str
    keyring: Path = KEYRING


def find_suites() -> tuple[Suite, ...]:
    """Return the suites to read, beginning with the release itself.

    ``DRUMHEAD_DEBIAN_MIRROR`` and ``DRUMHEAD_DEBIAN_SECURITY_MIRROR`` give the URLs of archives; without them, apt's
    sources on a Debian host are used, and Debian's own servers elsewhere. ``DRUMHEAD_DEBIAN_KEYRING`` gives another
    keyring for gpgv.
    """
    keyring = Path(os.environ.get("DRUMHEAD_DEBIAN_KEYRING", str(KEYRING)))
    if not keyring.is_file():
        raise DrumheadError(
            ErrorCode.HOST_TOOL,
            f"{keyring} is missing, so Debian's signatures cannot be verified; install debian-archive-keyring",
        )
    mirror = os.environ.get("DRUMHEAD_DEBIAN_MIRROR")
    if mirror:
        found = [Suite(uri=mirror.rstrip("/"), name=RELEASE, keyring=keyring)]
        if security := os.environ.get("DRUMHEAD_DEBIAN_SECURITY_MIRROR"):
            found.append(Suite(uri=security.rstrip("/"), name=f"{RELEASE}-security", keyring=keyring))
        return tuple(found)
    return _suites_of_apt(keyring)


@functools.cache
def _suites_of_apt(keyring: Path) -> tuple[Suite, ...]:
    """Find Debian's suites among apt's sources, once for each process.

    The mirror of a host with another Debian release can be used too. Hosts of other distributions, and those without a
    mirror, use Debian's own servers.
    """
    main = _main_sources() if _is_debian() and host.look_for("apt-get") else []
    security = {uri for uri, name in main if name.endswith("-security")}
    updates = {uri for uri, name in main if name.endswith("-updates")} - security
    if not updates:
        updates = {uri for uri, name in main if "-" not in name} - security
    if not updates:
        updates, security = {_ARCHIVE}, {_SECURITY}
    archive = min(updates)
    names = [(archive, RELEASE), (archive, f"{RELEASE}-updates")]
    names += [(uri, f"{RELEASE}-security") for uri in sorted(security)]
    return tuple(Suite(uri=uri, name=name, keyring=keyring) for uri, name in names)


def _is_debian() -> bool:
    try:
        return platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        return False


def _main_sources() -> list[tuple[str, str]]:
    """Return URI and suite of each of apt's sources with the component main that HTTP can reach."""
    # Unlike `apt-get indextargets`, this does not need apt's lists, which containers and fresh machines lack.
    listing = host.run(["apt-get", "update", "--print-uris"]).decode()
    found = [(_address(uri), suite) for uri, suite in _MAIN_INDEX.findall(listing)]
    return [(uri, suite) for uri, suite in found if uri.startswith(("http://", "https://"))]


def _address(uri: str) -> str:
    """Return the URI of an archive, or the first one of apt's list of mirrors, which Debian's cloud images have."""
    if not uri.startswith(_MIRRORS):
        return uri
    path = Path(uri.removeprefix(_MIRRORS))
    mirrors = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return next((words[0].rstrip("/") for line in mirrors if (words := line.partition("#")[0].split())), "")
