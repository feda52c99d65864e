"""Reads which summaries a grid file names, and checks that claims are of such."""

from collections.abc import Sequence

from pydantic import ValidationError

from jobs.contract.folder import get_object
from launcher.workspace.yaml_file import Document
from zsg_core import schema_errors
from zsg_core.metrics import summaries as summary_keys
from zsg_core.settings.claims import Claim
from zsg_core.settings.summaries import SummarySettings

KEY = "summaries"


def read_summaries(document: Document) -> SummarySettings:
    """What a grid file says under `summaries`; nothing where it does not stand there.
    UserError with the line of what cannot be."""
    value = document.value.get(KEY)
    if value is None:
        return SummarySettings()
    try:
        return SummarySettings.model_validate(value)
    except ValidationError as error:
        keys, problem = schema_errors.find_first_problem(error, SummarySettings)
        raise document.error((KEY, *keys), f"{KEY}: {problem}") from None


def check_claim(claim: Claim, averages: Sequence[str]) -> None:
    """UserError for a claim of a summary that there cannot be; `averages`: the names of
    those that its grid file has."""
    for metric in claim.metrics:
        summary_keys.check_key(metric, averages)


def list_averages(document: Document) -> list[str]:
    """The names of the averages of a grid file, whatever else of it is wrong."""
    return list(get_object(get_object(document.value.get(KEY)).get("averages")))
