"""Judges whether somebody can be told from here: whether the variable is set, and holds
an address to which a message may be posted. Sends nothing."""

import os
from collections.abc import Mapping, Sequence

from jobs.contract.notices import Receiver, Way
from zsg_core import addresses


def explain_unusable(
    receiver: Receiver, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Why nothing can be sent to a receiver from here; None where it can be tried. The
    words do not repeat the address."""
    if receiver.way == Way.COMMAND:
        return None if receiver.command else "no command is named"
    address = environment.get(receiver.variable, "").strip()
    if not address:
        return f"{receiver.variable} is not set"
    why = _explain_address(address)
    return f"the address in {receiver.variable} {why}" if why else None


def explain_missing(
    receivers: Sequence[Receiver], environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Which receivers cannot be told from here, each in a sentence for the user."""
    troubles: list[str] = []
    for receiver in receivers:
        why = explain_unusable(receiver, environment)
        if why is not None:
            troubles.append(
                f"notify: {why}: nobody is told there until it is (export"
                f" {receiver.variable}=…)"
            )
    return troubles


def _explain_address(address: str) -> str | None:
    """Why no message is posted to an address; None if one may be. A query is allowed:
    some services have their key there."""
    plain, _, query = address.partition("?")
    if not all("!" <= sign <= "~" for sign in query):
        return "holds a blank, a control character or a letter beyond ASCII"
    if "#" in query or len(address) > addresses.MOST_CHARACTERS:
        return "holds a fragment (`#`), or is too long"
    if why := addresses.explain_refusal(plain):
        return why
    if addresses.explain_key_refusal(plain):
        return (
            "is plain http to another machine, and whoever stands between could read it: "
            "give https://…"
        )
    return None
