"""Which addresses may a grid or a profile name, and to which may a key go?"""

import pytest

from zsg_core import addresses

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com/v1",
        "http://login_01:5000",
        "https://mlflow.lab.org/team",
        "http://[::1]:8000/v1",
        "http://127.0.0.1:8000/v1",
        "HTTPS://Host.Example./v1",
    ],
)
def test_addresses_that_may_be_named(address: str) -> None:
    """A host by its name or its IP address, a port, a path."""
    assert addresses.explain_refusal(address) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (f"https://me:{SECRET}@host/v1", "names a user or a password"),
        (f"https://{SECRET}@host/v1", "names a user or a password"),
        ("http://127.0.0.1@evil.example/v1", "names a user or a password"),
        (f"https://host/v1?api_key={SECRET}", "holds a query"),
        (f"https://host/v1#{SECRET}", "holds a query"),
        (f"https://host/v1;key={SECRET}", "holds a query"),
        ("https://host/v1?", "holds a query"),
        ("https://host/v1\r\nX: y", "a control character"),
        ("https://host/v1\x1b[8m", "a control character"),
        ("https://host/a b", "holds a blank"),
        ("https://höst/v1", "beyond ASCII"),
        ("https://host\u202e/v1", "beyond ASCII"),
        ("http://evil.example\\@127.0.0.1/", "a backslash"),
        ("ftp://host/v1", "is not http://"),
        ("file:///etc/passwd", "is not http://"),
        ("//host/v1", "is not http://"),
        ("http://", "names no host"),
        ("http://host:99999", "is not http://"),
        ("http://host:0/", "is not http://"),
        ("http://2130706433/v1", "by numbers"),
        ("http://0x7f000001/v1", "by numbers"),
        ("http://0177.0.0.1/v1", "by numbers"),
        ("http://127.1/v1", "by numbers"),
        ("http://1.2.3.4.5/v1", "by numbers"),
        ("http://0.0.0.0:8000/v1", "0.0.0.0"),
        ("http://[::1", "is not http://"),
        ("http://127.0.0.1%2eevil.example/", "names no host"),
        ("https://" + "a" * 3000, "is longer"),
    ],
)
def test_addresses_that_are_refused(address: str, why: str) -> None:
    """Each with its reason, which does not repeat what it holds."""
    said = addresses.explain_refusal(address)

    assert said is not None
    assert why in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "localhost.", "::1"]
)
def test_hosts_that_are_this_machine(host: str) -> None:
    """Loopback by name and by number."""
    assert addresses.is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil.com",
        "127.0.0.1.nip.io",
        "127.0.0.1.",
        "notlocalhost",
        "0.0.0.0",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "128.0.0.1",
        "::",
        "::ffff:127.0.0.1",
        "::2",
        "",
        "10.0.0.1",
    ],
)
def test_hosts_that_are_not_this_machine(host: str) -> None:
    """Whatever they look like."""
    assert not addresses.is_this_machine(host)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("https://evil.example/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://node7:8000/v1", False),
        ("http://localhost.evil.com/v1", False),
        ("HTTP://10.0.0.1/v1", False),
    ],
)
def test_a_key_goes_over_plain_http_to_this_machine_only(
    address: str, may: bool
) -> None:
    """Elsewhere it goes encrypted."""
    assert (addresses.explain_key_refusal(address) is None) is may
