"""Says what makers of data will ask for and what that may cost, before anybody is asked.

A maker is a pure function: its first round of requests is written here as the job will
write it, of all items where they are few, else of some of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.grids.runs import Asked, Run
from launcher.planning import row_counts
from launcher.planning.plan import Prepare
from zsg_core import recipe as recipes
from zsg_core.data import splits
from zsg_core.data.examples import Example
from zsg_core.errors import UserError
from zsg_core.makers.registry import MAKERS, Request
from zsg_core.settings.makers import AskedSettings, MakerSettings

MOST_WRITTEN = 20_000  # requests of which all are written
FEW = 200  # items of which some are, where there would be more
AROUND = 16  # tokens that a template may write around a text, at most


@dataclass(frozen=True)
class Asking:
    """What a maker asks for, at most or about. `read`: tokens, one of each byte at
    most."""

    items: int
    requests: int
    read: int
    written: int
    is_exact: bool


def list_servers(prepare: Prepare) -> list[tuple[str, AskedSettings]]:
    """The servers that a job asks, each with the source that it makes."""
    return [
        (source, teacher.server)
        for _, source, teacher in _list_asked(prepare)
        if teacher.server is not None
    ]


def describe_making(prepare: Prepare) -> list[str]:
    """A line for each set that a job has made."""
    lines: list[str] = []
    for run, source, teacher in _list_asked(prepare):
        line = _describe(run, source, teacher)
        caution = teacher.make.of_maker.caution
        lines.append(f"{line}; {caution}" if caution else line)
    return lines


def _list_asked(prepare: Prepare) -> Iterator[tuple[Run, str, Asked]]:
    if prepare.maker is None:
        return
    for run in prepare.runs:
        for source, need in run.answers.items():
            if need in prepare.makes and source in run.asked:
                yield run, source, run.asked[source]


def _describe(run: Run, source: str, teacher: Asked) -> str:
    """What is asked for one source, of whom, and what that costs at most."""
    whom = _name_asked(run, teacher)
    begins = f"make.{teacher.make.maker} of source {source} asks {whom}"
    asking = estimate_asking(run, source, teacher)
    tokens = teacher.make.of_maker.most_tokens
    if asking is None:
        return f"{begins} for at most {tokens:,} tokens each time; how often, only its job knows"
    about = "" if asking.is_exact else "about "
    line = (
        f"{begins} {about}{asking.requests:,} times, of {asking.items:,} items, for at most"
        f" {tokens:,} tokens each: {asking.written:,} tokens written at most"
    )
    server = teacher.server
    cost = server and server.bound_cost(asking.read, asking.written)
    if server is None or cost is None:
        return line
    line += f", a cost of {cost:,.4g} at most, with a token for each byte that is read"
    if server.budget is not None:
        line += f"; the budget is {server.budget:,.4g}"
    return line


def _name_asked(run: Run, teacher: Asked) -> str:
    """Who is asked, for people."""
    if teacher.server is not None:
        return f"{teacher.server.model} at {teacher.server.base_url}"
    if teacher.folder is not None:
        return f"the model in {teacher.folder}"
    return f"the run's own model, {run.model_name}"


def estimate_asking(run: Run, source: str, teacher: Asked) -> Asking | None:
    """What a maker asks for; None where the data are too large to be read here, or
    cannot be read: the job tells why."""
    rule = recipes.list_sources(run.stage["data"])[source]
    examples = row_counts.read_few(run.sources[source], rule)
    if examples is None:
        return None
    settings = teacher.make.of_maker
    items = _choose_items(examples, settings)
    is_exact = settings.count_requests(len(items)) <= MOST_WRITTEN
    written_of = items if is_exact else items[:FEW]
    try:
        requests = next(MAKERS[teacher.make.maker].start(written_of, settings))
    except (StopIteration, UserError):
        return None
    share = 1.0 if is_exact else len(items) / len(written_of)
    if settings.most_rounds > 1:
        # what the later rounds ask for depends on the replies
        share *= settings.most_rounds
        is_exact = False
    read = sum(map(_bound_read, requests))
    written = sum(request.sampling.max_new_tokens for request in requests)
    return Asking(
        items=len(items),
        requests=round(share * len(requests)),
        read=round(share * read),
        written=round(share * written),
        is_exact=is_exact,
    )


def _choose_items(
    examples: Sequence[Example], settings: MakerSettings
) -> Sequence[Example]:
    """Those that the maker is given."""
    if settings.items is None:
        return examples
    return splits.sample_nested(examples, settings.items, settings.seed, recipes.MAKE)


def _bound_read(request: Request) -> int:
    """The most tokens that are read of a request."""
    texts = [request.system, *(text for turn in request.turns for text in turn)]
    return sum(len(text.encode(errors="replace")) + AROUND for text in texts if text)
