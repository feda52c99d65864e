"""Says which login MLflow's client would send to an address, and why it must not.

The client sends the login that its variables name, or else that of its file, to
whatever server it asks. A server of the user's own (`zsg server`) is told its own token
and nothing else; see jobs.tracking.server_tokens.
"""

import os
from collections.abc import Mapping

from jobs.files.paths import find_home
from jobs.tracking import server_tokens
from zsg_core import addresses

TOKEN = "MLFLOW_TRACKING_TOKEN"
_VARIABLES = (TOKEN, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_FILE = "~/.mlflow/credentials"


def list_told(uri: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """What a server at this address would be told, by name."""
    if is_own_server(uri):
        return ["the token of your zsg server there, unencrypted"]
    named = [name for name in _VARIABLES if environment.get(name)]
    return named or [f"the login of {_FILE}"] * _has_file()


def explain_refusal(
    uri: str, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Why MLflow's client must not be pointed at an address: others could read the
    login on its way."""
    logins_told = [] if is_own_server(uri) else list_told(uri, environment)
    why = addresses.explain_key_refusal(uri) if logins_told else None
    if why is None:
        return None
    mend = f"move {_FILE} away" if logins_told[0] not in _VARIABLES else "unset them"
    return f"the server would be told {' and '.join(logins_told)}, and its address {why}; or {mend}"


def is_own_server(uri: str) -> bool:
    """Whether the user's own `zsg server` is at this address."""
    try:
        return server_tokens.find_token(uri) is not None
    except server_tokens.Exposed:
        return False


def _has_file() -> bool:
    home = find_home()
    return home is not None and (home / _FILE.removeprefix("~/")).exists()
