"""Test which addresses webhooks may have."""

from __future__ import annotations

import pytest

from safelight.errors import Error
from safelight.master.webhook.address import RefusedAddressError, check_url, guarded_socket, is_public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost:8001/task", "http://10.0.0.1/", "http://192.168.1.1/", "http://[::1]/",
        "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/",
        "ftp://example.org/",
        "file:///etc/passwd", "http://user:pass@example.org/", "http:///nothing", "example.org",
        "http://exa mple.org:x/", "http://localhost./", "http://photos.LOCALHOST/", "http://127。0。0。1/",
    ],
)  # fmt: skip
async def test_addresses_that_are_never_called(url):
    with pytest.raises(Error):
        check_url(url, allow_private=False)


@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "127.1", "0", "0177.0.0.1", "0x7f.1", "0X7F000001", "127.0.0.1.", "256.1.1.1", "1.2.3.4.5",
        "%31%32%37.0.0.1", "a..b", "...", "exa mple.org", "a,b", f"{'a' * 64}.org", f"{'a.' * 127}org",
    ],
)  # fmt: skip
async def test_hosts_that_no_call_could_reach_are_refused_at_once(host, allow_private):
    with pytest.raises(Error, match="The host .* of the webhook is"):
        check_url(f"http://{host}/", allow_private=allow_private)


def test_addresses_that_may_be_called():
    for url in ("https://example.org/hook?x=1", "http://7.example.ORG./", "http://bücher.example/", "http://a_b-c/"):
        check_url(url, allow_private=False)
    check_url("http://93.184.216.34:8080/", allow_private=False)
    check_url("http://127.0.0.1:8080/", allow_private=True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("255.255.255.255", False), ("224.0.0.1", False), ("::1", False), ("::", False),
        ("192.0.0.192", False), ("198.18.0.1", False), ("240.0.0.1", False), ("100.64.0.1", False),
        ("fec0::1", False), ("::127.0.0.1", False), ("::8.8.8.8", False), ("64:ff9b:1::8.8.8.8", False),
        ("2001::1", False), ("fd00::1", False), ("4000::1", False),
        ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:10.0.0.1", False), ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("2002:5db8:d822::1", True), ("64:ff9b::5db8:d822", True),
        ("192.0.0.192", False), ("192.0.0.9", False), ("192.88.99.1", False), ("192.175.48.1", False),
        ("198.18.0.1", False), ("240.0.0.1", False), ("fec0::1", False), ("feff::1", False), ("::127.0.0.1", False),
        ("::10.0.0.1", False), ("::ffff:0:10.0.0.1", False), ("64:ff9b:1::a00:1", False), ("2001:0:a00:1::", False),
        ("2001:db8::1", False), ("3fff::1", False), ("5f00::1", False), ("100::1", False), ("ff0e::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


def test_no_socket_is_opened_to_an_internal_address():
    with pytest.raises(RefusedAddressError):
        guarded_socket((2, 1, 6, "", ("127.0.0.1", 80)))
    with guarded_socket((2, 1, 6, "", ("93.184.216.34", 80))) as opened:
        assert opened.fileno() >= 0
