"""What a maker of data is, and which there are.

A maker asks a model for texts and makes examples of the replies: answers to problems
(RFT), tags (InsTag), wordings (paraphrases), instructions (Self-Instruct). It is one
function under `@maker("name", …)` in a module of this folder, and its settings are one
class in zsg_core.settings.makers. The function is pure. It asks in rounds: it yields a
list of `Request`, is sent the list of `Reply` in the same order, and at last returns
what it `Made`:

    @maker("echo", EchoSettings, about="every question, answered twice")
    def make_echo(examples: Sequence[Example], settings: EchoSettings) -> Steps:
        sampling = Sampling(max_new_tokens=settings.max_new_tokens)
        requests = [
            Request(id=example.id, turns=(ask(example.input),), sampling=sampling)
            for example in examples
        ]
        replies = yield requests
        made = Made()
        for example, reply in zip(examples, replies, strict=True):
            if reply.refused:
                made.refuse(reply.refused)
            elif not reply.text.strip():
                made.refuse("the reply is empty")
            else:
                made.examples.append(example.answering(reply.text.strip()))
        return made

Who runs it (jobs.preparing.making) asks a model in a folder, or one at an address. Each
reply is on the disk before the next is asked for, and is never asked for again: a job
that was killed starts the function anew, and sends it the replies that are there. So a
maker must be a function of its arguments and of the replies alone: no clock, no
`random` without a seed of the settings, no order of a set. Then its set is the same
however often the job was killed.

What a maker must do, and what others do for it:

- Requests have ids that are unique in the whole making. An id also names the draws of a
  model in a folder, so several samples of one question are several requests:
  `problem/0`, `problem/1`.
- A reply with `refused` has no text: the request is beyond the model's positions, or the
  server refused it. `is_cut` says that it ended at max_new_tokens.
- Every reply that becomes no example is counted by `Made.refuse`, with a reason in a few
  words without names of items: the counts are told by status, plan and report.
- The text of a reply is anything. It is never run as code, and no pattern whose time
  grows faster than the text is put to it.
- The examples that a maker is given are those of the source, after `items` has chosen
  some. The examples that it returns are the records of the source: ids unique, tasks as
  they are to be counted and held out by. Which ids to give is the maker's affair;
  `<id of the item>/<number>` is usual.
- A maker that makes a file for users beside its examples puts it into `Made.files`: a
  plain name, and its text. It lies in the folder of the records.
- `keeps`: settings that decide only what is kept of the replies. Sets that differ in
  nothing else share their replies, so a threshold can be tried at several values for the
  price of one. All other settings are taken to decide what is asked.
- One that compares meanings says so by `embeds` of its settings. Then it is called with
  a third argument `encode`, which makes unit vectors of texts, (texts, d); the vectors
  are kept by content, as those of orders are.
- `packages`: modules of an extra that it imports once it has the replies. Plan and the
  job look for them before anybody is asked.

Tests send a maker replies of their own with `run_maker`.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zsg_core.data.examples import Example, Turn
from zsg_core.registry import Registry
from zsg_core.settings.makers import MakerSettings


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a reply is drawn.

    `temperature` 0 is the likeliest token each time. `stops`: texts at which a reply is
    over; what follows is cut off, and the stop with it.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a model is asked once: a dialogue whose last answer is empty."""

    id: str
    turns: tuple[Turn, ...]
    sampling: Sampling
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model replied to one request.

    `is_cut`: it was not over after max_new_tokens. `refused`: why there is no text, in
    a few words; empty where there is one.
    """

    text: str = ""
    is_cut: bool = False
    refused: str = ""


@dataclass
class Made:
    """What a maker made: examples in their order, and how many replies or items became
    none, by the reason.

    `facts`: further counts and figures by their names, as users read them. `files`:
    texts that lie beside the examples, by plain names such as `tags.json`.
    """

    examples: list[Example] = field(default_factory=list[Example])
    refused: dict[str, int] = field(default_factory=dict[str, int])
    facts: dict[str, int | float | str] = field(
        default_factory=dict[str, int | float | str]
    )
    files: dict[str, str] = field(default_factory=dict[str, str])

    def refuse(self, reason: str) -> None:
        """Counts one item or reply that becomes no example."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


Steps = Generator[Sequence[Request], Sequence[Reply], Made]
# texts → a vector of unit length for each, (texts, d)
Encode = Callable[[Sequence[str]], NDArray[np.float32]]
# examples of the source, the maker's own settings, and `encode` where it embeds → its
# steps
MakeFunction = Callable[..., Steps]


@dataclass(frozen=True, kw_only=True)
class Maker:
    """One maker. `settings`: the class of its settings; `about`: what it does; `keeps`:
    names of the settings that decide only what is kept of the replies; `packages`:
    modules of the extra `evaluate` that it imports."""

    name: str
    about: str
    settings: type[MakerSettings]
    make: MakeFunction
    keeps: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()

    def start(
        self,
        examples: Sequence[Example],
        settings: MakerSettings,
        encode: Encode | None = None,
    ) -> Steps:
        """Its steps; `encode` is handed on where it compares meanings."""
        if settings.embeds:
            return self.make(examples, settings, encode)
        return self.make(examples, settings)


MAKERS: Registry[Maker] = Registry("maker", "zsg_core.makers")


def maker(
    name: str,
    settings: type[MakerSettings],
    *,
    about: str,
    keeps: Sequence[str] = (),
    packages: Sequence[str] = (),
) -> Callable[[MakeFunction], MakeFunction]:
    """Registers a function that makes examples. ValueError for a name in `keeps` that
    is none of the settings."""
    unknown = set(keeps) - set(settings.model_fields)
    if unknown:
        raise ValueError(f"maker {name} has no setting {', '.join(sorted(unknown))}")

    def register(make: MakeFunction) -> MakeFunction:
        entry = Maker(
            name=name,
            about=about,
            settings=settings,
            make=make,
            keeps=frozenset(keeps),
            packages=tuple(packages),
        )
        MAKERS.add(name, entry)
        return make

    return register


def ask(question: str) -> Turn:
    """A turn that waits for its answer."""
    return question, ""


def run_maker(
    steps: Steps, answer: Callable[[Sequence[Request]], Sequence[Reply]]
) -> Made:
    """Runs a maker to its end. `answer` gives the replies of one round, in the order of
    its requests.

    ValueError for a maker that asks two requests by one id, and for an answer of
    another length.
    """
    asked: set[str] = set()
    try:
        requests = next(steps)
        while True:
            _note_ids(asked, requests)
            replies = answer(requests)
            if len(replies) != len(requests):
                raise ValueError(
                    f"{len(requests)} requests have {len(replies)} replies"
                )
            requests = steps.send(replies)
    except StopIteration as end:
        return end.value


def _note_ids(asked: set[str], requests: Sequence[Request]) -> None:
    for request in requests:
        if request.id in asked:
            raise ValueError(f"two requests are called {request.id!r}")
        asked.add(request.id)
