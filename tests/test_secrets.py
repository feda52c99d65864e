"""Is a key hidden however a text writes it, and is nothing else?"""

import base64
import html
import json
import logging
import time
import traceback
import urllib.parse
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import entry
from jobs.runtime import job_log, tracebacks
from launcher import cli
from zsg_core import secrets
from zsg_core.errors import UserError

KEY = "sk-SECRETKEY+/12&34%x"
FORMS = {
    "as it is": KEY,
    "in a header": f"Bearer {KEY}",
    "as JSON": json.dumps(KEY),
    "as JSON, every character escaped": "".join(f"\\u{ord(one):04x}" for one in KEY),
    "as JSON in JSON": json.dumps(
        json.dumps("".join(f"\\u{ord(one):04X}" for one in KEY))
    ),
    "as bytes of Python": repr(KEY.encode()),
    "in a query": urllib.parse.quote(KEY, safe=""),
    "in a query, every character": "".join(f"%{ord(one):02x}" for one in KEY),
    "in a query, twice": urllib.parse.quote(urllib.parse.quote(KEY, safe=""), safe=""),
    "in HTML": html.escape(KEY),
    "in HTML, every character": "".join(f"&#{ord(one)};" for one in KEY),
    "in HTML, hexadecimal": "".join(f"&#x{ord(one):x};" for one in KEY),
    "in hexadecimal": KEY.encode().hex(),
    "backwards": KEY[::-1],
    "its beginning": f"{KEY[:10]}***",
    "its end": f"***{KEY[-9:]}",
    "with a slash escaped": KEY.replace("/", "\\/"),
    **{
        f"in base64 behind {n}": base64.b64encode(b"x" * n + KEY.encode()).decode()
        for n in range(4)
    },
    **{
        f"in base32 behind {n}": base64.b32encode(b"x" * n + KEY.encode()).decode()
        for n in range(5)
    },
    "with blanks between": " ".join(KEY),
    "with a dot between": ".".join(KEY),
    "one character a line": "\n".join(KEY),
    "in other case": KEY.swapcase(),
    "in octal": "".join(f"\\{ord(one):03o}" for one in KEY),
    "in long escapes": "".join(f"\\U{ord(one):08x}" for one in KEY),
    "in escapes with braces": "".join(f"\\u{{{ord(one):04x}}}" for one in KEY),
    "in quoted-printable": "".join(f"={ord(one):02X}" for one in KEY),
    "in hexadecimal with colons": KEY.encode().hex(":"),
    "as a login": base64.urlsafe_b64encode(f"me:{KEY}".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_key_is_hidden_in_every_form(form: str) -> None:
    """Whole or in part, and what stands around it stays."""
    hidden = secrets.hide_secrets(f"HTTP 401: {form} is wrong", [KEY])

    assert secrets.HIDDEN in hidden
    assert hidden.startswith("HTTP 401: ")
    assert hidden.endswith(" is wrong")
    assert KEY[:6] not in hidden
    assert KEY[3:9].lower() not in "".join(filter(str.isalnum, hidden)).lower()
    assert base64.b64encode(KEY.encode()).decode()[:8] not in hidden


@pytest.mark.parametrize(
    "text", ["", "100 % of \\ & &amp; %41 \\u0041", "sk-", "a SECRET", "x" * 1000]
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    """Escapes that hold no key, too."""
    assert secrets.hide_secrets(text, [KEY, ""]) == text


def test_a_short_key_is_hidden_whole() -> None:
    """Servers of one's own take any word; no part of it is hidden, or words would go."""
    assert (
        secrets.hide_secrets("the key EMPTY, an EMP", ["EMPTY"]) == "the key …, an EMP"
    )


@pytest.mark.parametrize(
    "text",
    [
        "\\" * 300_000,
        "%25" * 100_000 + "zz",
        KEY * 15_000,
        "://:" * 50_000,
        "?key" * 50_000,
    ],
    ids=["escapes", "percents", "keys", "addresses", "queries"],
)
def test_long_texts_take_no_time_that_grows_with_their_square(text: str) -> None:
    """Whatever a server sends: each takes a second or two; by the square of its length
    it would take minutes."""
    began = time.process_time()
    secrets.hide_secrets(secrets.hide_in_addresses(text), [KEY])

    assert time.process_time() - began < 60


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://host/db"),
        ("postgresql://me:hun/ter2@host/db", "postgresql://host/db"),
        ("http://hunter2@host", "http://host"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("https://host/v1?api_key=hunter2&v=1", "https://host/v1?api_key=…&v=1"),
        (
            "https://host/v1?v=1&access_token=hunter2#x",
            "https://host/v1?v=1&access_token=…#x",
        ),
    ],
)
def test_addresses_are_shown_without_what_is_secret_in_them(
    text: str, shown: str
) -> None:
    """User, password and keys go, the rest stays."""
    assert secrets.hide_in_addresses(text) == shown


def test_what_the_environment_says_is_secret_is_hidden() -> None:
    """By the names of its variables; paths and short values are none."""
    environment = {
        "MLFLOW_TRACKING_TOKEN": "tok-0123456789\n",
        "HTTPS_PROXY": "http://me:proxy-password@proxy:3128",
        "KEY_FILE": "/home/me/key.pem",
        "X_TOKEN": "short",
        "LANG": "en_GB.UTF-8",
    }
    text = "tok-0123456789 proxy-password /home/me/key.pem short en_GB.UTF-8"

    assert (
        secrets.hide_known(text, environment)
        == "… … /home/me/key.pem short en_GB.UTF-8"
    )


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "JUDGE_TOKEN",
        "API_KEY",
        "LAB_APIKEY",
        "MY_JUDGE_KEY",
        "X_API_KEY_2",
    ],
)
def test_variables_that_may_be_a_judges_key(name: str) -> None:
    """Their names say so."""
    assert secrets.explain_name_refusal(name, "https://any.example/v1") is None


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "SSH_AUTH_SOCK",
        "HOME",
        "PATH",
        "DJANGO_SECRET_KEY",
        "PGPASSWORD",
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "GITLAB_TOKEN",
        "CI_JOB_TOKEN",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "WANDB_API_KEY",
        "MLFLOW_TRACKING_TOKEN",
        "SLURM_JWT",
        "VAULT_TOKEN",
        "NPM_TOKEN",
        "TOKENIZERS_PARALLELISM",
        "hf_token",
    ],
)
def test_other_variables_are_not_sent(name: str) -> None:
    """Neither what is no key nor what is another service's, and it is said what to do."""
    assert "JUDGE_API_KEY" in str(
        secrets.explain_name_refusal(name, "https://huggingface.co.evil.example/v1")
    )


def test_a_services_key_is_sent_to_that_service() -> None:
    """To its own hosts, and to none that only looks so."""
    assert (
        secrets.explain_name_refusal("HF_TOKEN", "https://router.huggingface.co/v1")
        is None
    )
    assert (
        secrets.explain_name_refusal("HF_TOKEN", "https://evilhuggingface.co/v1")
        is not None
    )
    assert (
        secrets.explain_name_refusal(
            "GITHUB_TOKEN", "https://models.github.ai/inference"
        )
        is None
    )


@pytest.mark.parametrize("value", ["sk-1\r", "sk-1\r\n", " sk-1\t", "sk-1\n\n"])
def test_a_keys_line_end_is_no_part_of_it(value: str) -> None:
    """A file that it was read from had one."""
    assert secrets.read_key("THE_API_KEY", {"THE_API_KEY": value}) == "sk-1"


@pytest.mark.parametrize(
    "value",
    [
        "sk-SECRET\r\nX: y",
        "sk-SECRET\x00",
        "sk-SECRET…",
        "sk SECRET",
        "sk-SECRET\x7f",
        "sk-SECRETé",
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_told(
    value: str,
) -> None:
    """The message names the variable."""
    with pytest.raises(UserError, match="THE_API_KEY is no key") as refused:
        secrets.read_key("THE_API_KEY", {"THE_API_KEY": value})

    assert "SECRET" not in str(refused.value)


def test_an_empty_key_is_none() -> None:
    """Also one of blanks only."""
    assert secrets.read_key("THE_API_KEY", {"THE_API_KEY": " \n"}) is None
    assert secrets.read_key("THE_API_KEY", {}) is None


TOKEN = "tok-0123456789abcdef"


def test_how_a_job_ended_does_not_tell_its_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A library quotes a header in its error: neither the record nor what the job says has it."""
    monkeypatch.setenv("LAB_API_KEY", TOKEN)
    told = entry._cause(ValueError(f"Invalid header value b'Bearer {TOKEN}'"))
    said: list[str] = []
    monkeypatch.setattr(entry.sys.stderr, "write", said.append)
    pulse: Any = SimpleNamespace(does=said.append, says=said.append)
    job_log.install_job_log()
    with job_log.record_progress("evaluating", None, pulse):
        logging.getLogger("jobs.any").info(f"asked with {TOKEN}")

    assert told["evidence"] == "ValueError: Invalid header value b'Bearer …'"
    line, *beat = said
    assert line.endswith(" INFO asked with …\n")
    assert beat == ["evaluating", "asked with …"]


def test_a_job_and_its_log_have_the_same_hash_of_an_error_that_told_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log shows the traceback with the key hidden."""
    monkeypatch.setenv("LAB_API_KEY", TOKEN)
    try:
        raise ValueError(f"sent {TOKEN} to nobody")
    except ValueError as error:
        caught, log = error, secrets.hide_known(traceback.format_exc())

    assert TOKEN not in log
    assert tracebacks.hash_error(caught) == tracebacks.hash_last_traceback(
        log.splitlines()
    )


def test_a_bug_of_a_command_shows_its_traceback_without_keys(
    monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends with 1."""
    monkeypatch.setenv("LAB_API_KEY", TOKEN)

    def fail() -> None:
        raise RuntimeError(f"cannot send {TOKEN}")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err

    assert ended.value.code == 1
    assert said.startswith("Traceback (most recent call last)")
    assert said.endswith("RuntimeError: cannot send …\n")
