"""Asks a model in a folder for a maker of data.

The draws are seeded by the ids of requests, and batches are those of all requests of a
round, as they were planned first; one of which some replies were lost is answered again
whole. So a job that was killed and went on has the replies that one in one go would have
had, to the bit on a machine that computes alike.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.contract.folder import read_json, write_json
from jobs.model.vocabulary import Vocabulary
from jobs.preparing.reply_log import LoggedReply, ReplyLog, clean_text, digest_request
from zsg_core.data import prompts
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.makers.registry import Request, Sampling

if TYPE_CHECKING:
    from jobs.model.generate import Generator

logger = logging.getLogger(__name__)

BATCHES = "batches.json"
TOO_LONG = "too long for the model"
LEAST_ROOM = 16  # tokens of what zsg's own templates write around texts
GREEDY, DRAWN = "greedy", "fast_nucleus"


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a model reads requests and ends replies: `context` are its positions, `ends`
    the tokens at which a reply is over."""

    vocabulary: Vocabulary
    template: Template
    context: int
    ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A request as the model's tokens. `digest`: of the request, as the log has it."""

    request: Request
    ids: list[int]
    digest: str


class AskedModel:
    """A model in a folder, which a maker asks. `name`: for people.

    `load` gives the model; it is called once, where anything is to be asked. `seed`: of
    the draws.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Any],
        writing: Writing,
        seed: int,
        device: str,
    ) -> None:
        self.name = name
        self._load = load
        self._writing = writing
        self._vocabulary = writing.vocabulary
        self._template = writing.template
        self._seed = seed
        self._device = device
        self._model: Any = None

    def cost(self, read: int, written: int) -> float | None:  # noqa: ARG002
        """A model of one's own has no price."""
        return None

    def answer(self, requests: Sequence[Request], log: ReplyLog) -> None:
        """Has every request of a round in the log."""
        if all(log.get(request) is not None for request in requests):
            return
        by_sampling: dict[Sampling, list[Request]] = {}
        for request in requests:
            by_sampling.setdefault(request.sampling, []).append(request)
        for sampling, alike in by_sampling.items():
            self._answer_alike(alike, sampling, log)

    def _answer_alike(
        self, requests: Sequence[Request], sampling: Sampling, log: ReplyLog
    ) -> None:
        """Has requests in the log that are drawn in one way."""
        fitting, too_long = self._encode(requests, sampling)
        log.add(
            LoggedReply(
                request=digest_request(request), id=request.id, refused=TOO_LONG
            )
            for request in too_long
        )
        waiting = {prompt.digest for prompt in fitting if prompt.digest not in log}
        if not waiting:
            return
        generator = self._open_generator(sampling)
        batches = self._plan_batches(generator, fitting, log)
        replied = len(fitting) - len(waiting)
        if replied:
            logger.info(f"asking {len(fitting)} times, continuing after {replied}")
        for batch in _select_unfinished(batches, fitting, log):
            log.add(self._generate(generator, batch, sampling))
            waiting.difference_update(prompt.digest for prompt in batch)
            replied = len(fitting) - len(waiting)
            logger.info(f"{replied} of {len(fitting)} requests have a reply")

    def _encode(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> tuple[list[Prompt], list[Request]]:
        """The prompts of requests, and the requests that are too long for the model."""
        room = self._writing.context - sampling.max_new_tokens
        fitting: list[Prompt] = []
        too_long: list[Request] = []
        for request in requests:
            ids = self._encode_one(request, room)
            if ids is None:
                too_long.append(request)
            else:
                fitting.append(Prompt(request, ids, digest_request(request)))
        return fitting, too_long

    def _encode_one(self, request: Request, room: int) -> list[int] | None:
        """The tokens of a request; None where they are more than `room`."""
        if room <= LEAST_ROOM:
            return None
        example = Example(
            id=request.id, task="", turns=request.turns, system=request.system
        )
        if self._template.name == prompts.CHAT:
            chat = self._vocabulary.open_chat(self._template)
            prompt = chat.encode_prompt(example, room)
            return None if prompt.is_cut else prompt.ids
        encoded = prompts.encode_example(
            example,
            template=self._template,
            tokenize=self._vocabulary.tokenize,
            bos=self._vocabulary.bos,
            eos=self._vocabulary.eos,
            max_length=room,
        )
        if encoded.cut or len(encoded.spans) < len(request.turns):
            return None
        return encoded.ids[: encoded.spans[-1][0]]

    def _open_generator(self, sampling: Sampling) -> "Generator":
        from jobs.model.generate import Generator

        if self._model is None:
            self._model = self._load().eval().requires_grad_(False)
        how: dict[str, Any] = {
            "decoding": DRAWN if sampling.temperature else GREEDY,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": self._seed,
            "max_new_tokens": sampling.max_new_tokens,
        }
        if self._writing.ends:
            how["ends"] = list(self._writing.ends)
        if stops := self._list_stops(sampling):
            how["stops"] = stops
        return Generator(
            self._model,
            how,
            self._vocabulary.bos,
            self._vocabulary.eos,
            self._device,
            self._vocabulary.text,
        )

    def _list_stops(self, sampling: Sampling) -> list[str]:
        """The texts at which a reply is over: the request's, and where the template's
        next turn begins."""
        turn = prompts.next_turn(self._template.name)
        return [*([turn] if turn else []), *sampling.stops]

    def _plan_batches(
        self, generator: "Generator", fitting: Sequence[Prompt], log: ReplyLog
    ) -> list[list[int]]:
        """The batches of all prompts: those of the first start, whatever memory is free
        now."""
        ids = [prompt.ids for prompt in fitting]
        path = log.folder / BATCHES
        planned: dict[str, int] = read_json(path) or {}
        key = fitting[0].digest
        if key not in planned:
            planned[key] = generator.choose_tokens(ids)
            write_json(path, planned)
        generator.budget.keep_within(planned[key])
        return generator.plan_batches(ids)

    def _generate(
        self, generator: "Generator", batch: Sequence[Prompt], sampling: Sampling
    ) -> list[LoggedReply]:
        """The replies of a batch."""
        from jobs.model.generate import cut_at_stops

        ids = [prompt.ids for prompt in batch]
        names = [prompt.request.id for prompt in batch]
        answers = generator.answers(ids, names)
        stops = self._list_stops(sampling)
        return [
            LoggedReply(
                request=prompt.digest,
                id=prompt.request.id,
                text=clean_text(cut_at_stops(self._vocabulary.text(answer), stops)),
                cut=generator.is_cut(prompt.ids, answer),
                read=len(prompt.ids),
                written=len(answer),
            )
            for prompt, answer in zip(batch, answers, strict=True)
        ]


def _select_unfinished(
    batches: Sequence[Sequence[int]], fitting: Sequence[Prompt], log: ReplyLog
) -> Iterator[list[Prompt]]:
    """The batches of which a reply is missing, each whole: who shares a batch decides how
    its numbers are rounded. Replies that are there stay, and the same come again."""
    for batch in batches:
        prompts_of_batch = [fitting[index] for index in batch]
        if any(prompt.digest not in log for prompt in prompts_of_batch):
            yield prompts_of_batch
