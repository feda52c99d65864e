"""Wordings of an instruction, or of every question, by a model: the diversified
instructions of DELIA (arXiv 2408.10841).

With `instruction` one text is worded anew, in rounds until there are enough wordings,
and every example gets one of them; they also make a file that `instructions.path`
reads. Without it each question is worded anew, and every wording makes an example with
the question's own answer.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from zsg_core.data import instructions
from zsg_core.data.examples import Example
from zsg_core.errors import BadData
from zsg_core.makers import wordings
from zsg_core.makers.registry import Made, Reply, Request, Sampling, Steps, ask, maker
from zsg_core.makers.wordings import WordingPool
from zsg_core.settings.makers import ParaphraseSettings

WORDINGS_FILE = "wordings.json"  # a list of texts, as `instructions.path` reads
ONE_TEXT = "instruction"  # the name of the one text in the ids of its requests

ONE_PARAGRAPH = "examples left out: no paragraph of the question to replace"
NO_WORDING = "questions left out: no wording counts"

# settings that decide only which of the replies' wordings count, and how they are used
KEEPS = ("wordings", "most_similar", "place", "replaces", "original", "rounds")


@dataclass
class Rewording:
    """A text that is worded anew, under a name that its requests have in their ids."""

    name: str
    pool: WordingPool

    def lacks(self, wanted: int) -> bool:
        """Whether it has fewer wordings than are wanted."""
        return len(self.pool.wordings) < wanted


@maker(
    "paraphrases",
    ParaphraseSettings,
    about="wordings of an instruction or of every question, which differ",
    keeps=KEEPS,
    packages=("rouge_score",),
)
def make_paraphrases(
    examples: Sequence[Example], settings: ParaphraseSettings
) -> Steps:
    """The examples with the wordings of one instruction, or of their own questions."""
    made = Made()
    rewordings = list_texts(examples, settings)
    for number in range(settings.rounds):
        unfinished = [
            rewording for rewording in rewordings if rewording.lacks(settings.wordings)
        ]
        if not unfinished:
            break
        requests = [
            write_request(rewording, number, settings) for rewording in unfinished
        ]
        replies = yield requests
        for rewording, reply in zip(unfinished, replies, strict=True):
            take_wordings(reply, rewording.pool, settings.wordings, made)
    tell_figures(rewordings, settings, made)
    if settings.instruction is None:
        word_questions(examples, rewordings, settings, made)
    else:
        word_instruction(examples, rewordings[0].pool, settings, made)
    return made


def list_texts(
    examples: Sequence[Example], settings: ParaphraseSettings
) -> list[Rewording]:
    """The texts that are worded anew: the instruction, or every first question."""
    if settings.instruction is not None:
        pool = _open_pool(settings.instruction, settings)
        return [Rewording(ONE_TEXT, pool)]
    return [
        Rewording(example.id, _open_pool(example.input, settings))
        for example in examples
    ]


def _open_pool(text: str, settings: ParaphraseSettings) -> WordingPool:
    marks = wordings.find_marks(text, settings.marks)
    return WordingPool(text, marks, settings.most_similar)


def write_request(
    rewording: Rewording, number: int, settings: ParaphraseSettings
) -> Request:
    """The request for one text in one round; the round draws anew."""
    pool = rewording.pool
    prompt = wordings.write_prompt(
        settings.prompt, pool.text, settings.per_request, pool.marks
    )
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    return Request(
        id=f"{rewording.name}/{number}",
        turns=(ask(prompt),),
        system=settings.system,
        sampling=sampling,
    )


def take_wordings(reply: Reply, pool: WordingPool, wanted: int, made: Made) -> None:
    """Takes in the wordings of a reply until there are enough; what does not count is
    counted, each wording by its reason."""
    if reply.refused:
        made.refuse(reply.refused)
        return
    listed = wordings.read_numbered_list(reply.text, reply.is_cut)
    if listed.refusal is not None:
        made.refuse(listed.refusal)
        return
    if listed.lost:
        made.refuse(wordings.CUT)
    for entry in listed.entries:
        if len(pool.wordings) >= wanted:
            made.refuse(wordings.ENOUGH)
            continue
        refusal = pool.add(entry)
        if refusal is not None:
            made.refuse(refusal)


def tell_figures(
    rewordings: Sequence[Rewording], settings: ParaphraseSettings, made: Made
) -> None:
    """Counts the texts, their wordings, and the texts that have too few."""
    made.facts["texts worded anew"] = len(rewordings)
    made.facts["wordings that count"] = sum(
        len(rewording.pool.wordings) for rewording in rewordings
    )
    made.facts["texts with fewer wordings than wanted"] = sum(
        rewording.lacks(settings.wordings) for rewording in rewordings
    )


def word_instruction(
    examples: Sequence[Example],
    pool: WordingPool,
    settings: ParaphraseSettings,
    made: Made,
) -> None:
    """Gives every example one of the instruction's wordings, drawn by its id, and
    writes the file of them."""
    texts = _list_wordings(pool, settings)
    made.files[WORDINGS_FILE] = json.dumps(texts, ensure_ascii=False, indent=1) + "\n"
    if not texts:
        return
    rule = {
        "place": settings.place,
        "replaces": settings.replaces,
        "seed": settings.seed,
    }
    for example in examples:
        try:
            worded = instructions.apply_wording(example, texts, rule)
        except BadData:
            made.refuse(ONE_PARAGRAPH)
            continue
        made.examples.append(worded)


def word_questions(
    examples: Sequence[Example],
    rewordings: Sequence[Rewording],
    settings: ParaphraseSettings,
    made: Made,
) -> None:
    """Writes an example for each wording of each question, with the question's own
    answer and the dialogue that follows."""
    for example, rewording in zip(examples, rewordings, strict=True):
        texts = _list_wordings(rewording.pool, settings)
        if not rewording.pool.wordings:
            made.refuse(NO_WORDING)
        answer = example.turns[0][1]
        for number, text in enumerate(texts):
            turns = ((text, answer), *example.turns[1:])
            worded = msgspec.structs.replace(
                example, id=f"{example.id}/{number}", turns=turns
            )
            made.examples.append(worded)


def _list_wordings(pool: WordingPool, settings: ParaphraseSettings) -> list[str]:
    """The wordings of a text, the original first where it is one."""
    if settings.original:
        return [pool.text, *pool.wordings]
    return list(pool.wordings)
