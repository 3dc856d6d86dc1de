"""Test the parsers of options: sizes, ports, volumes and addresses."""

import pytest

from drumhead.cli.flags import MachineFlags
from drumhead.cli.machine.run import _read_spec
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.machine.records import PortForward, VolumeMount
from drumhead.machine.spec import options
from drumhead.machine.spec.request import choose_commands
from drumhead.records import Blob, Command, Image, Kernel


@pytest.mark.parametrize(
    ("text", "mib"), [("200M", 200), ("200", 200), ("1G", 1024), ("1g", 1024), ("512MiB", 512), ("65536K", 64)]
)
def test_memory_is_read(text, mib):
    assert options.read_memory(text) == mib


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080:80", PortForward(host_port=8080, guest_port=80)),
        ("0:80/tcp", PortForward(host_port=0, guest_port=80)),
        ("5353:53/udp", PortForward(host_port=5353, guest_port=53, protocol="udp")),
        ("0.0.0.0:8080:80", PortForward(host_port=8080, guest_port=80, host_address="0.0.0.0")),
        ("[::1]:8080:80", PortForward(host_port=8080, guest_port=80, host_address="::1")),
    ],
)
def test_forward_is_read(text, forward):
    assert options.read_forward(text) == forward


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("data:/data", VolumeMount(source="data", path="/data")),
        ("data:/data/:ro", VolumeMount(source="data", path="/data", readonly=True)),
        ("data:/var/db:2G", VolumeMount(source="data", path="/var/db", size=2 << 30)),
        ("./disk.raw:/data", VolumeMount(source="./disk.raw", path="/data")),
    ],
)
def test_volume_is_read(text, volume):
    assert options.read_volume(text) == volume


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (options.read_memory, "much"),
        (options.read_memory, "16M"),
        (options.read_memory, "-1"),
        (options.read_memory, "²"),
        (options.read_memory, "9" * 5000),
        (options.read_disk_size, "9" * 400),
        (options.read_disk_size, "17T"),
        (options.read_forward, "8080"),
        (options.read_forward, "²:80"),
        (options.read_forward, "8080:0"),
        (options.read_forward, "70000:80"),
        (options.read_forward, "80:80/sctp"),
        (options.read_forward, "localhost:80:80"),
        (options.read_volume, "data"),
        (options.read_volume, "data:/"),
        (options.read_volume, "data:relative"),
        (options.read_volume, "da ta:/data"),
        (options.read_forward, "[::1]:8080:80/udp"),
        (options.read_forward, "[127.0.0.1]:8080:80"),
        (options.read_forward, "[::1:8080:80"),
        (options.read_forward, "::1:8080:80"),
        (options.read_volume, "data:/proc"),
        (options.read_volume, "data:/dev/shm"),
        (options.read_volume, "data:/data/../proc"),
        (options.read_disk_size, "10"),
        (options.read_volume, "data:/usr"),
        (options.read_volume, "data:/etc/"),
        (options.read_volume, "data:/data\n"),
        (options.read_volume, f"data:/{'d' * 300}"),
        (options.read_volume, f"data:{'/d' * 3000}"),
        (options.read_volume, "data:/data:ro:ro"),
        (options.read_volume, "data:/data:1G:2G"),
        (options.read_volume, "data:/data:rw"),
        (options.read_memory, "9999999999999T"),
        (options.read_forward, "8080:80/"),
        (options.read_mac, "A2:13:15:00:80"),
        (options.read_mac, "A3:13:15:00:80:01"),
        (options.read_instance_name, "a/b"),
        (options.read_instance_name, "../up"),
        (options.read_instance_name, ""),
        (options.read_private_network, "a/b"),
        (options.read_private_network, "a" * 64),
        (options.read_instance_name, "LocalHost"),
        (options.read_mac, "00:00:00:00:00:00"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_written(read, text):
    with pytest.raises(DrumheadError) as refused:
        read(text)
    assert refused.value.code is ErrorCode.USAGE
    assert any(part[:20] in refused.value.message for part in text.split(":"))


@pytest.mark.parametrize("text", ["0", "16M", "31"])
def test_too_little_memory_is_answered_with_what_each_guest_needs(text):
    with pytest.raises(DrumheadError) as refused:
        options.read_memory(text)
    for name in ("linux", "osv"):
        assert f"{find_guest(name).least_memory} MiB on {name}" in refused.value.message


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("stop",), "requires an argument"),
        (("delete",), "requires an argument"),
        (("rmi",), "requires an argument"),
        (("stop", "--grace", "-1", "x"), "-1 is not a number of seconds"),
        (("up", "--detach", "--timeout", "-1"), "-1 is not a number of seconds"),
        (("wait", "--timeout", "nan", "x"), "nan is not a number of seconds"),
        (("logs", "--tail", "-3", "x"), "-3 is not a number"),
    ],
)
def test_what_a_command_cannot_do_is_refused(empty, words, reason):
    assert reason in empty.refused(*words, status=2)


@pytest.mark.parametrize("count", [0, -1, 1000])
def test_a_number_of_cpus_that_no_machine_has_is_refused(count):
    with pytest.raises(DrumheadError, match="virtual CPUs"):
        options.read_cpus(count)


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (options.read_volumes, ("data:/one", "data:/two")),
        (options.read_volumes, ("one:/data", "two:/data/")),
        (options.read_forwards, ("8080:80", "8080:81")),
        (options.read_forwards, ("0.0.0.0:8080:80", "8080:81")),
        (options.read_forwards, ("[::1]:8080:80", "[::]:8080:81")),
        (options.read_forwards, ("[::1]:8080:80", "[0:0:0:0:0:0:0:1]:8080:81")),
    ],
)
def test_what_can_be_there_once_is_refused_twice(read, texts):
    with pytest.raises(DrumheadError) as refused:
        read(texts)
    assert refused.value.code is ErrorCode.USAGE


def test_a_volume_within_another_is_mounted_after_it():
    assert [volume.source for volume in options.read_volumes(("in:/srv/data", "out:/srv"))] == ["out", "in"]


@pytest.mark.parametrize("seconds", ["-1", "0.5", "nan", "inf"])
def test_a_time_without_connections_that_never_comes_is_refused(empty, seconds):
    refused = empty.refused("run", "-d", "-f", "80:80", "--sleep-after", seconds, "image", status=2)
    assert "--sleep-after: give a number of seconds from 1 to" in refused


def test_a_command_line_may_begin_with_a_variable_and_goes_alone(empty):
    assert "there is no image" in empty.refused("run", "-e", "--env=A=1 /a", "image", status=3)
    assert "give only one of them" in empty.refused("run", "-e", "/a", "--run", "web", "image", status=2)


@pytest.mark.parametrize("words", [("run", "one", "-i"), ("info",), ("rmi",), ("snapshot", "create")])
def test_what_is_no_name_of_an_image_is_not_said_to_be_missing(empty, words):
    assert "'My Photos!' is not an image name" in empty.refused(*words, "My Photos!", status=2)


def test_one_port_of_the_host_may_lead_in_by_tcp_and_udp():
    assert len(options.read_forwards(("53:53", "53:53/udp", "0:80", "0:81"))) == 4
    assert len(options.read_forwards(("0.0.0.0:80:80", "[::]:80:80", "127.0.0.2:81:80", "127.0.0.3:81:80"))) == 4


def test_variables_keep_everything_after_the_first_equals_sign():
    assert options.read_variables(["A=b=c", "EMPTY="]) == {"A": "b=c", "EMPTY": ""}
    for wrong in ("A", "A B=1", "=1", "A=\0", "A=\udcff"):
        with pytest.raises(DrumheadError):
            options.read_variables([wrong])


def test_a_device_of_the_host_needs_a_network_of_the_host(empty):
    refused = empty.refused("run", "-b", "br0", "image", status=2)
    assert "-b br0 is a device for -n bridge, tap or vhost" in refused


@pytest.mark.parametrize("count", ["1.5", "1e1", "²", "two"])
def test_a_count_that_is_no_whole_number_is_refused_and_not_rounded(empty, count):
    for words in (("run", "-i", "image", "name"), ("snapshot", "create", "image")):
        assert f"{count} is not a whole number" in empty.refused(*words, "-c", count, status=2)


@pytest.mark.parametrize("text", ["", " "])
def test_a_command_line_without_a_program_is_not_taken_for_none(text):
    kernel = Kernel(package="linux", version="1", vmlinux=Blob(digest="0" * 64, size=1), initrd=None)
    commands = {"web": Command(argv=("/web",))}
    image = Image(
        name="i", title="", version="", guest="linux", kernel=kernel, layers=(), commands=commands, default="web"
    )
    assert choose_commands(image)[0].argv == ("/web",)
    with pytest.raises(DrumheadError, match=f"-e '{text}' names no program"):
        choose_commands(image, command_line=text)


@pytest.mark.parametrize("image", ["", "i"])
def test_a_volume_after_v_is_no_name(image):
    with pytest.raises(DrumheadError, match="to mount a volume, write --volume data:/data:ro"):
        _read_spec("data:/data:ro", "web", MachineFlags(verbose=True, image=image))
