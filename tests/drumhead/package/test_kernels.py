"""Test kernels that the user provides: they are recognised by content, checked, and stored."""

import asyncio
import gzip
import hashlib
import lzma
import subprocess

import pytest

from drumhead.errors import EXIT_STATUS, ErrorCode
from drumhead.package.osv.module import fit
from drumhead.package.store import PackageStore, parse_ref
from support.guests import osv

pytestmark = pytest.mark.slow

UNSUPPORTED = EXIT_STATUS[ErrorCode.UNSUPPORTED]
UNVERIFIED = EXIT_STATUS[ErrorCode.UNVERIFIED]
BZIMAGE = bytes(510) + b"\x55\xaa\0\0HdrS" + bytes(200)
RELEASES = "https://github.com/cloudius-systems/osv/releases"


def digest_of(contents):
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"


def test_a_kernel_and_its_files_are_kept_whatever_they_are_called(empty, tmp_path):
    sources = osv.files(tmp_path / "files")
    said = empty("kernel", "add", *reversed(sources))
    assert "added osv@0.99.0-7-gabcdef01" in said
    package = PackageStore(empty.home).find(parse_ref("osv"))
    tree = PackageStore(empty.home).tree(package)
    assert [path for path, entry in tree if entry.kind == "file"] == [
        "loader.img",
        "root/usr/lib/fs/libext.so",
        "root/usr/lib/liblwext4.so",
        "vmlinux.xz",
    ]
    assert lzma.decompress(tree["vmlinux.xz"].read()) == osv.kernel()
    assert tree["root/usr/lib/fs/libext.so"].read() == fit(sources[2].read_bytes())
    about = empty.json("kernel", "info")
    assert {origin["name"]: f"sha256:{origin['sha256']}" for origin in about["origins"]}["loader.img"] == digest_of(
        osv.boot_image()
    )
    assert "loader.img: " + digest_of(osv.boot_image()) in empty("kernel", "info", "osv@0.99.0-7-gabcdef01")


def test_versions_stand_side_by_side_and_the_newest_is_taken(empty, tmp_path):
    for version in ("v0.57.0", "v0.58.0-2-gabcdef01", "v0.58.0-12-g12345678"):
        file = tmp_path / "kernel"
        file.write_bytes(osv.kernel(version))
        empty("kernel", "add", file)
    listed = empty.json("kernel", "list")
    assert [kernel["version"] for kernel in listed] == ["0.57.0", "0.58.0-2-gabcdef01", "0.58.0-12-g12345678"]
    assert "osv   0.57.0" in empty("kernel", "list")
    assert empty.json("kernel", "info")["version"] == "0.58.0-12-g12345678"
    assert "there is: 0.57.0, 0.58.0-2" in empty.refused("kernel", "info", "osv@0.1", status=3)


def test_the_same_files_give_the_same_package_in_any_home(empty, tmp_path):
    sources = osv.files(tmp_path / "files")
    first = empty.json("kernel", "add", *sources)
    empty.home = type(empty.home)(root=tmp_path / "another-home")
    assert empty.json("kernel", "add", *sources) == first


def test_without_a_kernel_it_says_where_there_are_some(empty):
    said = empty.refused("kernel", "info", status=3)
    assert RELEASES in said
    assert "drumhead kernel add" in said


@pytest.mark.parametrize(
    ("contents", "status", "reason"),
    [
        (BZIMAGE, UNSUPPORTED, "is a bzImage"),
        (b"QFI\xfb" + bytes(600), UNSUPPORTED, "is a qcow2 disk"),
        (gzip.compress(osv.kernel(), mtime=0), UNSUPPORTED, "compressed by gzip; unpack it"),
        (b"<!DOCTYPE html><html>", UNSUPPORTED, "is a web page"),
        (b"some text", UNSUPPORTED, "is not a file of OSv"),
        (b"", UNVERIFIED, "is empty"),
        (osv.kernel(system=b"linux\0"), UNSUPPORTED, "is a kernel of linux"),
        (osv.kernel(pvh=False), UNSUPPORTED, "without the PVH note"),
        (osv.kernel(machine=183), UNSUPPORTED, "is made for ARM (aarch64)"),
        (osv.kernel("unknown"), UNSUPPORTED, "does not say its version"),
        (osv.kernel()[:-1], UNVERIFIED, "is truncated"),
        (osv.kernel()[:100], UNVERIFIED, "is truncated"),
        (osv.kernel()[:20], UNVERIFIED, "is truncated"),
        (osv.boot_image()[:-1], UNVERIFIED, "is truncated"),
        (osv.boot_image(), EXIT_STATUS[ErrorCode.INCOMPLETE], "none of the files is a kernel"),
    ],
)
def test_what_is_no_kernel_is_refused_with_what_it_is(empty, tmp_path, contents, status, reason):
    file = tmp_path / "loader-stripped.elf"
    file.write_bytes(contents)
    assert reason in empty.refused("kernel", "add", file, status=status)
    assert empty.json("kernel", "list") == []


def test_real_files_of_this_host_are_refused(empty, tmp_path):
    assert "is a directory; give the files in it (file)" in empty.refused(
        "kernel", "add", osv_folder(tmp_path), status=2
    )
    assert "is a program, not a kernel" in empty.refused("kernel", "add", static_program(tmp_path), status=UNSUPPORTED)
    assert "does not exist" in empty.refused("kernel", "add", tmp_path / "missing", status=3)


def osv_folder(tmp_path):
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "file").touch()
    return directory


def static_program(tmp_path):
    (tmp_path / "main.c").write_text("int main(void) { return 0; }")
    subprocess.run(["musl-gcc", "-static", "-no-pie", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    return tmp_path / "main"


def test_modules_come_with_what_they_need_and_nothing_else(empty, tmp_path):
    one, two, module, library = osv.files(tmp_path / "files")
    assert "needs liblwext4.so, which is not among" in empty.refused("kernel", "add", one, two, module, status=2)
    assert "does not need; leave it out" in empty.refused("kernel", "add", one, library, status=2)
    assert "are both a kernel" in empty.refused("kernel", "add", one, copy(one), status=2)
    assert empty.json("kernel", "list") == []


def test_modules_look_up_their_symbols_when_they_are_loaded(empty, tmp_path):
    (tmp_path / "kernel").write_bytes(osv.kernel())
    lazy, library = osv.modules(tmp_path, binding="lazy")
    assert " NOW" not in dynamic(lazy)
    empty("kernel", "add", tmp_path / "kernel", lazy, library)
    store = PackageStore(empty.home)
    kept = tmp_path / "kept.so"
    kept.write_bytes(store.tree(store.find(parse_ref("osv")))["root/usr/lib/fs/libext.so"].read())
    assert "Flags: NOW" in dynamic(kept)
    assert set(dynamic(lazy).splitlines()[3:]) - {""} <= set(dynamic(kept).splitlines()[3:])


def dynamic(path):
    return subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout


def copy(path):
    other = path.with_name("copy")
    other.write_bytes(path.read_bytes())
    return other


def test_a_digest_must_be_that_of_a_file(empty, tmp_path):
    one, two, *_ = osv.files(tmp_path / "files")
    right, wrong = digest_of(one.read_bytes()), "sha256:" + "0" * 64
    said = empty.refused("kernel", "add", one, "--digest", wrong, status=UNVERIFIED)
    assert f"no file has the digest {wrong}" in said
    assert right in said
    assert "64 hexadecimal digits" in empty.refused("kernel", "add", one, "--digest", "md5:12", status=2)
    assert empty.json("kernel", "list") == []
    empty("kernel", "add", two, one, "--digest", right)


async def test_from_an_address(empty, tmp_path, serve):
    osv.files(tmp_path / "files")
    url = f"{await serve(tmp_path / 'files')}/one"
    digest = digest_of(osv.kernel())

    def try_out():
        said = empty.refused("kernel", "add", url, status=2)
        assert f"has the digest {digest}, but a URL needs --digest" in said
        other = digest_of(osv.boot_image())
        assert "nothing is kept" in empty.refused("kernel", "add", url, "--digest", other, status=UNVERIFIED)
        assert "does not exist" in empty.refused("kernel", "add", url + "x", "--digest", digest, status=3)
        assert empty.json("kernel", "list") == []
        assert empty.json("kernel", "add", url, "--digest", digest)["version"] == "0.99.0-7-gabcdef01"

    await asyncio.to_thread(try_out)


def test_a_real_kernel_is_recognised(empty):
    files = osv.real_files()
    added = empty.json("kernel", "add", *files)
    assert added["version"][0].isdigit()
    assert len(added["origins"]) == len(files)
