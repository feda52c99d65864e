"""Judges the addresses of servers that grids and profiles name: what may stand in them,
and which are this machine.

Pure: no name is looked up here. Whoever sends a key over plain http also looks at the
address that the connection has.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

MOST_CHARACTERS = 2000
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
# what a resolver may take for a number, of which it makes an address
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


def explain_refusal(address: str) -> str | None:
    """Why this is no address of a server, in words that do not repeat it; None if it is one.

    Allowed: http or https, a host's name or its IP address written in full, a port, a
    path. No user, no password, no query: a key would stand in records and messages.
    """
    if refusal := _explain_bad_characters(address):
        return refusal
    split = _split(address)
    if split is None or split.scheme not in ("http", "https"):
        return "is not http://HOST:PORT/PATH or https://HOST/PATH"
    if "@" in split.netloc:
        return "names a user or a password, which would stand in records and messages: leave it out"
    if any(sign in address for sign in "?#;"):
        signs = "a query (`?`), a fragment (`#`) or a parameter (`;`)"
        return f"holds {signs}, in which a key would stand in records and messages: leave it out"
    return _explain_bad_host(split.hostname or "")


def _explain_bad_characters(address: str) -> str | None:
    if len(address) > MOST_CHARACTERS:
        return f"is longer than {MOST_CHARACTERS:,} characters"
    if not all("!" <= character <= "~" for character in address):
        return "holds a blank, a control character or a letter beyond ASCII"
    return "holds a backslash" if "\\" in address else None


def is_unencrypted(address: str) -> bool:
    """Whether what is sent there can be read on the way."""
    return address.lower().startswith("http://")


def is_this_machine(host: str) -> bool:
    """Whether a host, by its name or its IP address as text, is this machine and no other."""
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python 3.13 takes an IPv4 address in IPv6's notation for what it stands for.
    is_mapped = address.version == 6 and address.ipv4_mapped is not None
    return address.is_loopback and not is_mapped


def find_host(address: str) -> str:
    """The host of an address, without brackets; empty where there is none."""
    split = _split(address)
    return (split.hostname or "") if split else ""


def explain_key_refusal(address: str) -> str | None:
    """Why no key may be sent to an address; None where it goes encrypted, or only to
    this machine."""
    if not is_unencrypted(address) or is_this_machine(find_host(address)):
        return None
    return (
        "is plain http to another machine, and whoever stands between would read the key: give"
        " https://…, or reach it by a tunnel to this machine (ssh -L 8000:HOST:PORT) as"
        " http://127.0.0.1:8000"
    )


def _split(address: str) -> SplitResult | None:
    try:
        split = urlsplit(address)
        return split if split.port != 0 else None
    except ValueError:  # a port that is none, a bracket that is not closed
        return None


def _explain_bad_host(host: str) -> str | None:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return "names a host in brackets that is no IPv6 address"
        return "names an interface of this machine (`%`)" if "%" in host else None
    if not _NAME.fullmatch(host):
        return "names no host: letters, digits, `-` and `.`"
    # 2130706433, 0177.0.0.1 and 127.1 are 127.0.0.1 to some and another host to others.
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        try:
            ip_address = ipaddress.IPv4Address(host)
        except ValueError:
            return (
                "names a host by numbers that are no IP address: four of them, 0 to 255, with dots"
                " between"
            )
        if ip_address.is_unspecified:
            return (
                "names 0.0.0.0, which is no host but a word for all addresses: for this machine"
                " give 127.0.0.1"
            )
    return None
