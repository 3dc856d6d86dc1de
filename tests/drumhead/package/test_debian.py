"""Test Debian's archive: files that are unsigned, expired or differ from their digest are refused."""

import asyncio
import gzip
import hashlib
import lzma
import os
import platform
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from drumhead.debian.archive import Archive
from drumhead.debian.deb import read_deb, read_scripts
from drumhead.debian.sources import Suite, _suites_of_apt, find_suites
from drumhead.debian.version import version_key
from drumhead.download import new_client
from drumhead.errors import DrumheadError, ErrorCode
from support.guests.composing import write_files


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """Make a signing key; return the environment and its keyring."""
    directory = tmp_path_factory.mktemp("gnupg")
    directory.chmod(0o700)
    env = {**os.environ, "GNUPGHOME": str(directory)}
    words = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "archive@test", "ed25519", "sign"]
    subprocess.run(words, env=env, check=True, capture_output=True)
    keyring = directory / "archive.gpg"
    keyring.write_bytes(subprocess.run(["gpg", "--export"], env=env, check=True, capture_output=True).stdout)
    yield env, keyring
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=env, check=False, capture_output=True)


def make_deb(directory, name, version, files):
    root = write_files(directory / f"{name}-root", files)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@t>\nDescription: t\n"
    write_files(root, {"DEBIAN/control": control})
    deb = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, deb], check=True, capture_output=True)
    return deb


def make_archive(directory, key, *, name="bookworm", valid=timedelta(days=7)):
    """Make a signed archive with the packages a (which depends on b) and b."""
    env, _ = key
    entries = []
    for package, depends in (("a", "Depends: missing | b (>= 1), c:any\n"), ("b", "Provides: c\n")):
        deb = make_deb(directory, package, "1.0-1", {f"usr/share/{package}": package, "lib/x": "merged"})
        body = deb.read_bytes()
        entries.append(
            f"Package: {package}\nVersion: 1.0-1\n{depends}Filename: {deb.name}\nSize: {len(body)}\n"
            f"SHA256: {hashlib.sha256(body).hexdigest()}\n"
        )
    packages = lzma.compress("\n".join(entries).encode())
    digest = hashlib.sha256(packages).hexdigest()
    index = directory / f"dists/{name}/main/binary-amd64/by-hash/SHA256/{digest}"
    index.parent.mkdir(parents=True)
    index.write_bytes(packages)
    release = (
        f"Codename: {name}\nValid-Until: {format_datetime(datetime.now(UTC) + valid)}\nSHA256:\n"
        f" {digest} {len(packages)} main/binary-amd64/Packages.xz\n"
    )
    signed = subprocess.run(["gpg", "--clearsign"], input=release.encode(), env=env, check=True, capture_output=True)
    (directory / f"dists/{name}/InRelease").write_bytes(signed.stdout)
    return directory


async def open_archive(url, tmp_path, keyring, name="bookworm"):
    async with new_client() as client:
        archive = await Archive.open(client, tmp_path / "cache", (Suite(uri=url, name=name, keyring=keyring),))
        return archive, await archive.fetch(archive.find("a"))


async def test_a_signed_chain_is_followed_to_the_files(tmp_path, key, serve):
    url = await serve(make_archive(tmp_path / "archive", key))
    archive, deb = await open_archive(url, tmp_path, key[1])
    assert [package.name for package in archive.closure(("a",))] == ["a", "b"]
    assert archive.find("c").name == "b"
    tree, newest = read_deb(deb)
    assert tree["usr/share/a"].read() == b"a"
    assert tree["usr/lib/x"].read() == b"merged"
    assert newest > 0
    with pytest.raises(DrumheadError, match="no package nothing"):
        archive.find("nothing")


async def test_an_index_that_is_opened_several_times_is_downloaded_and_parsed_once(tmp_path, key, serve):
    asked = []

    def count(path, body):
        asked.append(path)
        return body

    url = await serve(make_archive(tmp_path / "archive", key), change=count)
    opened = await asyncio.gather(*(open_archive(url, tmp_path, key[1]) for _ in range(3)))
    assert len([path for path in asked if "by-hash" in path]) == 1
    assert len({id(archive.find("a")) for archive, _ in opened}) == 1


async def refusal(tmp_path, key, serve, change, **options):
    directory = make_archive(tmp_path / "archive", key, **options)
    with pytest.raises(DrumheadError) as caught:
        await open_archive(await serve(directory, change=change), tmp_path, key[1])
    assert caught.value.code is ErrorCode.UNVERIFIED
    return caught.value.message


@pytest.mark.parametrize("part", ["InRelease", "by-hash", ".deb"])
async def test_a_changed_byte_anywhere_is_refused(tmp_path, key, serve, part):
    def change(path, body):
        return body.replace(b"main/binary", b"main/bynary", 1)[:-1] + b"?" if part in path else body

    await refusal(tmp_path, key, serve, change)
    assert not list((tmp_path / "cache").rglob("*.deb"))


@pytest.mark.slow
async def test_an_unsigned_or_foreign_index_is_refused(tmp_path, key, serve):
    message = await refusal(
        tmp_path, key, serve, lambda path, body: b"Codename: bookworm\n" if "InRelease" in path else body
    )
    assert "is not signed by archive.gpg" in message
    url = await serve(tmp_path / "archive")
    with pytest.raises(DrumheadError, match="is not signed by debian-archive-keyring"):
        await open_archive(url, tmp_path, find_suites()[0].keyring)


async def test_an_old_or_other_index_is_refused(tmp_path, key, serve):
    assert "was valid until" in await refusal(tmp_path / "1", key, serve, None, valid=timedelta(days=-1))
    directory = make_archive(tmp_path / "2", key, name="trixie")
    (directory / "dists/bookworm").symlink_to("trixie")
    with pytest.raises(DrumheadError, match="index of trixie, not bookworm"):
        await open_archive(await serve(directory), tmp_path, key[1])


def test_the_mirror_comes_from_apt_or_the_environment(monkeypatch):
    names = [suite.name for suite in find_suites()]
    assert names[0] == "bookworm"
    assert all(suite.uri.startswith("http") for suite in find_suites())
    monkeypatch.setenv("DRUMHEAD_DEBIAN_MIRROR", "http://mirror.test/debian/")
    assert [suite.uri for suite in find_suites()] == ["http://mirror.test/debian"]
    monkeypatch.setenv("DRUMHEAD_DEBIAN_KEYRING", "/nowhere.gpg")
    with pytest.raises(DrumheadError, match="debian-archive-keyring"):
        find_suites()


OWN_SERVERS = {"http://deb.debian.org/debian", "http://deb.debian.org/debian-security"}


def test_apt_names_mirrors_without_its_lists_and_from_a_list_of_mirrors(tmp_path, monkeypatch):
    (tmp_path / "lists/partial").mkdir(parents=True)
    mirrors = tmp_path / "mirrors.list"
    mirrors.write_text("# nearby\nhttps://near.test/debian/\tpriority:1\nhttps://far.test/debian\tpriority:2\n")
    sources = tmp_path / "sources.list"
    sources.write_text(
        f"deb mirror+file:{mirrors} trixie main\ndeb mirror+file:{mirrors} trixie-updates main\n"
        "deb http://security.test/debian-security trixie-security main contrib\n"
        "deb cdrom:[Debian]/ trixie main\ndeb file:/srv/debian trixie main\ndeb http://flat.test/x ./\n"
    )
    config = tmp_path / "apt.conf"
    parts = f'Dir::Etc::sourcelist "{sources}"; Dir::Etc::sourceparts "-"; Dir::State::lists "{tmp_path}/lists";\n'
    config.write_text(parts)
    monkeypatch.setenv("APT_CONFIG", str(config))
    _suites_of_apt.cache_clear()
    try:
        assert [(suite.uri, suite.name) for suite in find_suites()] == [
            ("https://near.test/debian", "bookworm"),
            ("https://near.test/debian", "bookworm-updates"),
            ("http://security.test/debian-security", "bookworm-security"),
        ]
        mirrors.unlink()
        sources.write_text(f"deb mirror+file:{mirrors} trixie main\n")
        _suites_of_apt.cache_clear()
        assert {suite.uri for suite in find_suites()} == OWN_SERVERS
        sources.write_text("deb http://archive.ubuntu.com/ubuntu noble main\n")
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "ubuntu", "ID_LIKE": "debian"})
        _suites_of_apt.cache_clear()
        assert {suite.uri for suite in find_suites()} == OWN_SERVERS
    finally:
        _suites_of_apt.cache_clear()


def test_a_damaged_deb_is_refused(tmp_path):
    file = tmp_path / "x.deb"
    for body in (b"", b"!<arch>\n", b"!<arch>\n" + b"data.tar.xz".ljust(48) + b"4         `\nxxxx"):
        file.write_bytes(body)
        with pytest.raises(DrumheadError, match="not a readable Debian package"):
            read_deb(file)


@pytest.mark.parametrize(("suffix", "compress"), [(".xz", lzma.compress), (".gz", gzip.compress)])
@pytest.mark.parametrize("harm", [lambda body: body[: len(body) // 2], lambda body: body[:20] + b"?" * 20 + body[40:]])
def test_damaged_compression_is_refused(tmp_path, suffix, compress, harm):
    file = tmp_path / "x.deb"
    for read, part in ((read_deb, "data.tar"), (read_scripts, "control.tar")):
        body = harm(compress(os.urandom(4096)))
        header = f"{part}{suffix}".ljust(48) + str(len(body)).ljust(10) + "`\n"
        file.write_bytes(b"!<arch>\n" + header.encode() + body)
        with pytest.raises(DrumheadError, match="not a readable Debian package"):
            read(file)


def test_versions_are_ordered_as_dpkg_orders_them():
    ordered = ["1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0a-1", "1.0+dfsg-1", "1.9", "1.10", "1:0.1"]
    mixed = ordered[::2] + ordered[1::2]
    assert sorted(mixed, key=version_key) == ordered
    for one, two in zip(ordered, ordered[1:], strict=False):
        assert subprocess.run(["dpkg", "--compare-versions", one, "lt", two], check=False).returncode == 0


def test_any_text_has_a_place_among_versions():
    texts = ["", ":", "feature:1", "2024-05-01T12:30", "²:1", "-", "1:2:3", "9" * 5000, f"{'9' * 5000}:1", "\0é\n"]
    assert sorted(sorted(texts, key=version_key, reverse=True), key=version_key) == sorted(texts, key=version_key)
    assert version_key("2024-05-01T12:30") < version_key("2024-05-01T13:00") < version_key("2024-10-01T00:00")
