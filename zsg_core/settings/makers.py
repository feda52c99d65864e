"""Says the settings of makers of data: how a model is asked for texts, and which of
them become examples.

Each maker has a class of settings here and a field in MakeSettings, and its function in
a module of zsg_core.makers.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from zsg_core import addresses, secrets
from zsg_core.settings.fields import (
    MILLION,
    Count,
    FolderName,
    Positive,
    Price,
    Seed,
    Strict,
)

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
TEMPLATES = ("zsg", "vicuna", "llama2", "plain", "chat")
Stop = Annotated[str, Field(min_length=1, max_length=100)]


class MakerSettings(Strict):
    """What all makers have in common. Whatever of a maker's settings changes makes
    another set, kept by content."""

    items: Count | None = Field(
        default=None,
        description=(
            "Use only this many of the source's examples, drawn by `seed`. Null means all."
        ),
    )
    seed: Seed = Field(
        default=0,
        description=(
            "Seed of the draw of items, and of the draws of a model in a folder. No other "
            "seed changes them."
        ),
    )

    def count_requests(self, items: int) -> int:
        """The most requests of so many items."""
        return items

    def count_examples(self, items: int) -> int:
        """The most examples that are made of so many items."""
        return items

    @property
    def most_tokens(self) -> int:
        """The most tokens of one reply."""
        raise NotImplementedError

    @property
    def most_rounds(self) -> int:
        """How often it asks at most, where it asks anew once it has seen replies."""
        return 1

    @property
    def caution(self) -> str:
        """What of these settings can hardly be meant, as plan says it; else empty."""
        return ""

    @property
    def embeds(self) -> bool:
        """Whether meanings are compared, by a model that embeds texts."""
        return False

    @property
    def embedding_path(self) -> str | None:
        """The folder of that model; None for the one that is shipped."""
        return None

    @property
    def recipe(self) -> dict[str, Any]:
        """All its values, as a recipe has them; of a folder its content counts, which
        the recipe says elsewhere."""
        return self.model_dump(mode="json")


class RftSettings(MakerSettings):
    """Rejection-sampling fine-tuning: k answers of a model to each problem, of which the
    right ones stay that differ in their equations (arXiv 2308.01825); the defaults are
    as published."""

    samples: Count = Field(default=100, description="Answers to each problem (k).")
    temperature: Positive = Field(
        default=0.7, description="Temperature of the draws; higher is more random."
    )
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        default=1.0,
        description=(
            "Nucleus sampling: draw from the fewest most likely tokens that together have "
            "this probability."
        ),
    )
    max_new_tokens: Count = Field(
        default=256,
        description=(
            "Longest answer, in tokens. A longer one is cut there, and then refused: it "
            "is not over."
        ),
    )
    stops: list[Stop] = Field(
        default_factory=list[Stop],
        max_length=4,
        description=(
            "Texts at which an answer is over, for models that go on into a next "
            "question; they are cut off with all that follows."
        ),
    )
    system: str = Field(
        default="",
        description="The system text before the problem, as the model sees it.",
    )
    wording: str = Field(
        default="",
        description=(
            "What the model is told after the problem, with a blank line between, such "
            "as how to end. The examples that are made do not have it."
        ),
    )
    read: Literal["marked", "last"] = Field(
        default="marked",
        description=(
            "Where the number of an answer stands: marked = after the first `#### `, as "
            "published; last = the last number, for models that were not taught the mark."
        ),
    )
    gold: bool = Field(
        default=True,
        description=(
            "Whether the problem's own answer is an example, too, before those of the "
            "model."
        ),
    )

    def count_requests(self, items: int) -> int:
        return items * self.samples

    def count_examples(self, items: int) -> int:
        return items * (self.samples + int(self.gold))

    @property
    def most_tokens(self) -> int:
        return self.max_new_tokens


QUERY = "{query}"  # where the query of a dialogue stands in a tagger's prompt
TEXT, WORDINGS, MARKS = "{text}", "{count}", "{marks}"  # in the prompt of rewording

# How the published tagger is asked in code that others have published for it.
TAG_PROMPT = (
    "Please identify tags of user intentions in the following user query and provide an"
    " explanation for each tag. Please respond in the JSON format"
    ' {"tag": str, "explanation": str}.\nUser query: {query}'
)
# of one tag and its explanation, asked for so; a reply has several
TAG_TOKENS = 60
# zsg's own: nobody has published one
WORDING_PROMPT = (
    "Word the following text anew in {count} different ways. Keep its meaning.{marks}"
    " Answer with a numbered list and nothing else.\n\nText: {text}"
)

Prompt = Annotated[str, Field(min_length=1, max_length=20_000)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Wording = Annotated[str, Field(min_length=1, max_length=2_000)]
Mark = Annotated[str, Field(min_length=1, max_length=200)]


class MeaningSettings(Strict):
    """Which tags are one as they mean the same: those whose embeddings are close, by
    DBSCAN."""

    embedding: FolderName | None = Field(
        default=None,
        description=(
            "Folder of the sentence-transformers model that embeds tags; its content "
            "enters the run id. Null means the one that is shipped, all-MiniLM-L6-v2; the "
            "paper's is PhraseBERT."
        ),
    )
    threshold: Share = Field(
        default=0.05,
        description=(
            "How close two tags are one, by the cosine of their embeddings; `kind` says "
            "what the number is."
        ),
    )
    kind: Literal["distance", "similarity"] = Field(
        default="distance",
        description=(
            "distance = 1 − cosine is at most the threshold; similarity = the cosine is "
            "at least the threshold. The paper's text may mean either."
        ),
    )
    least_neighbours: Count = Field(
        default=1,
        description=(
            "How many tags are close to a tag from which a group grows, itself included; "
            "1 joins every two that are close. Not published."
        ),
    )


class InstagSettings(MakerSettings):
    """Tags of dialogues by a model, made few by InsTag's steps (arXiv 2308.07074); the
    defaults are as published, where they are."""

    turns: Literal["first", "all"] = Field(
        default="all",
        description=(
            "What of a dialogue is tagged: all questions of its user, or the first."
        ),
    )
    longest_query: Count | None = Field(
        default=None,
        description=(
            "Characters of a query that the tagger sees; the rest is cut off, and "
            "counted. Null means all, and a query beyond the tagger's positions has no "
            "tags."
        ),
    )
    prompt: Prompt = Field(
        default=TAG_PROMPT,
        description=(
            "How the tagger is asked; {query} stands for the query. The default is that "
            "of InsTagger."
        ),
    )
    system: str = Field(
        default="", description="The system text before it, as the model sees it."
    )
    max_new_tokens: Count = Field(
        default=512,
        description=(
            "Longest reply, in tokens. One that is not over there has no tags; a tag with "
            "its explanation takes some 60."
        ),
    )
    at_least: Count = Field(
        default=20,
        description=(
            "A tag of fewer dialogues is dropped; 1 keeps all. Small data need less than "
            "the published 20."
        ),
    )
    frequency: Literal["raw", "rules"] = Field(
        default="raw",
        description=(
            "When rare tags are dropped: raw = as the tagger wrote them, as published; "
            "rules = after lower case and stems, which keeps what is frequent in several "
            "spellings."
        ),
    )
    meaning: MeaningSettings | None = Field(
        default=None,
        description=(
            "Join tags that mean the same, by their embeddings; {} = as published. Null "
            "leaves that step out."
        ),
    )
    support: Annotated[int, Field(ge=0)] = Field(
        default=40,
        description=(
            "Dialogues that must have both of two tags before one can go over into the "
            "other; 0 leaves association out."
        ),
    )
    confidence: Share = Field(
        default=0.99,
        description=(
            "Share of a tag's dialogues that must have the other tag, too, for it to go "
            "over into that."
        ),
    )
    choose: Count | None = Field(
        default=None,
        description=(
            "Keep only this many dialogues, of many different tags: InsTag's "
            "complexity-first diverse sampling. Null means all."
        ),
    )
    untagged: Literal["keep", "drop"] = Field(
        default="keep",
        description=(
            "What becomes of dialogues that have no tag in the end: they stay, or are "
            "left out."
        ),
    )

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if prompt.count(QUERY) != 1:
            raise ValueError(f"needs {QUERY} once, where the query is to stand")
        return prompt

    @property
    def caution(self) -> str:
        if self.prompt != TAG_PROMPT or self.max_new_tokens >= TAG_TOKENS:
            return ""
        return (
            f"a tag with its explanation takes some {TAG_TOKENS} tokens, and a reply that is cut"
            f" has no tags: max_new_tokens {self.max_new_tokens} may leave none"
        )

    @property
    def embeds(self) -> bool:
        return self.meaning is not None

    @property
    def embedding_path(self) -> str | None:
        if self.meaning is None:
            return None
        return self.meaning.embedding

    @property
    def recipe(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"meaning": {"embedding"}})

    @property
    def most_tokens(self) -> int:
        return self.max_new_tokens


class ParaphraseSettings(MakerSettings):
    """Wordings of an instruction, or of every question, by a model: DELIA's
    diversification (arXiv 2408.10841), of which neither prompt nor code is published."""

    instruction: Wording | None = Field(
        default=None,
        description=(
            "The text that is worded anew; each example gets one of its wordings, drawn "
            "by `seed`. Null means that every example's first question is worded anew."
        ),
    )
    wordings: Count = Field(
        default=60,
        description=(
            "How many wordings of a text are wanted. DELIA has 60 of one instruction; "
            "for questions of their own, a few."
        ),
    )
    per_request: Annotated[int, Field(ge=1, le=100)] = Field(
        default=10, description="How many wordings are asked for at a time."
    )
    rounds: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=12,
        description="How often one text is asked for at most; it ends with enough wordings.",
    )
    marks: list[Mark] = Field(
        default_factory=list[Mark],
        max_length=100,
        description=(
            "Texts that every wording must hold where the original does: a new token, "
            "names of fields."
        ),
    )
    most_similar: Share = Field(
        default=0.7,
        description=(
            "The greatest ROUGE-L to the original and to the wordings before it at which "
            "a wording counts."
        ),
    )
    place: Literal["after", "before"] = Field(
        default="after",
        description=(
            "With `instruction`: whether it stands after or before the question, with a "
            "blank line between."
        ),
    )
    replaces: bool = Field(
        default=False,
        description=(
            "With `instruction`: whether it replaces the last paragraph of the question "
            "(the first, with `place: before`). Questions of one paragraph are left out, "
            "and counted."
        ),
    )
    original: bool = Field(
        default=True,
        description="Whether the original is one of the wordings, the first.",
    )
    prompt: Prompt = Field(
        default=WORDING_PROMPT,
        description=(
            "How the model is asked; {text} stands for the text, {count} for "
            "`per_request`, {marks} for a sentence with the marks."
        ),
    )
    system: str = Field(
        default="", description="The system text before it, as the model sees it."
    )
    temperature: Positive = Field(
        default=1.0, description="Temperature of the draws; higher is more random."
    )
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        default=1.0,
        description=(
            "Nucleus sampling: draw from the fewest most likely tokens that together have "
            "this probability."
        ),
    )
    max_new_tokens: Count = Field(
        default=1024,
        description=(
            "Longest reply, in tokens; of one that is not over there the last wording is "
            "left out."
        ),
    )

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if prompt.count(TEXT) != 1:
            raise ValueError(f"needs {TEXT} once, where the text is to stand")
        return prompt

    @model_validator(mode="after")
    def _only_what_counts(self) -> "ParaphraseSettings":
        if self.instruction is None:
            # a recipe writes defaults out, so that they are given says nothing
            for key, idle in (("place", "after"), ("replaces", False)):
                if getattr(self, key) != idle:
                    raise ValueError(
                        f"`{key}` is of an `instruction`, and none is given"
                    )
            return self
        for mark in self.marks:
            if mark not in self.instruction:
                raise ValueError(
                    f"`marks`: {mark!r} does not stand in `instruction`, so no wording"
                    " needs it"
                )
        return self

    def count_requests(self, items: int) -> int:
        texts = items if self.instruction is None else 1
        return texts * self.rounds

    def count_examples(self, items: int) -> int:
        if self.instruction is not None:
            return items
        return items * (self.wordings + int(self.original))

    @property
    def most_rounds(self) -> int:
        return self.rounds

    @property
    def most_tokens(self) -> int:
        return self.max_new_tokens


class AskedSettings(Strict):
    """Who is asked: a model in a folder, or one at an OpenAI-compatible address."""

    path: FolderName | None = Field(
        default=None,
        description=(
            "A model in a folder: a base, or the snapshot of a run that was kept. Its "
            "content enters the run id. Either this, or `base_url` and `model`."
        ),
    )
    base_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description=(
            "The address of a server up to /chat/completions, such as "
            "http://127.0.0.1:8000/v1, which the node must reach. It enters no run id."
        ),
    )
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description=(
            "The model's name at that address. It enters the run id: another model makes "
            "another set."
        ),
    )
    template: Literal[TEMPLATES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "How requests are written for the model in the folder; chat = by the chat "
            "template of its tokenizer. Null means data.template."
        ),
    )
    key_env: Variable | None = Field(
        default=None,
        description=(
            "Name of the environment variable that holds the key; it ends in _API_KEY or "
            "_TOKEN and is handed on to the job. The key goes over https://, or to "
            "127.0.0.1. Null means no key."
        ),
    )
    at_once: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8, description="How many requests the server is sent at a time."
    )
    seeds: bool = Field(
        default=False,
        description=(
            "Whether each request carries a `seed` of its own, for servers that know it "
            "(vLLM, SGLang, llama.cpp): a request that was lost with its reply is then "
            "drawn again as it was. Others may refuse it."
        ),
    )
    price_read: Price | None = Field(
        default=None,
        description="What a million tokens cost that the server reads, in any currency.",
    )
    price_written: Price | None = Field(
        default=None,
        description="The same of a million tokens that it writes.",
    )
    budget: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None,
        description=(
            "The most that this set may cost, in that currency; needs both prices. The "
            "job ends when it is spent, and goes on with a larger one. Null means no "
            "limit."
        ),
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        why = addresses.explain_refusal(address) if address else None
        if why:
            raise ValueError(
                f"the address {why}. A key is named by key_env, and only there"
            )
        return address

    @model_validator(mode="after")
    def _makes_sense(self) -> "AskedSettings":
        problem = (
            self._explain_bad_place()
            or self._explain_idle_key()
            or self._explain_bad_budget()
            or self._explain_key_refusal()
        )
        if problem:
            raise ValueError(problem)
        return self

    def _explain_bad_place(self) -> str | None:
        """Why it is not clear who is asked; None where it is."""
        if self.path is not None and self.base_url is not None:
            return "`path` and `base_url` both say who is asked; give one of them"
        if self.path is None and self.base_url is None:
            return (
                "give `path`, a model's folder, or `base_url` and `model`; without `by` the"
                " run's own model is asked"
            )
        if self.base_url is not None and self.model is None:
            return "`base_url` needs `model`, the model's name at that address"
        return None

    def _explain_idle_key(self) -> str | None:
        """Which key does nothing for a model in a folder; None where none does."""
        if self.path is None:
            if self.template is None:
                return None
            return "`template` is of a model in a folder; a server has its own, take it out"
        given = self.model_fields_set - {"path", "template"}
        for key in sorted(given):
            if getattr(self, key) is not None:
                return f"`{key}` is of a server at `base_url`; take it out"
        return None

    def _explain_bad_budget(self) -> str | None:
        """Why a budget cannot be kept; None where it can, or there is none."""
        prices = (self.price_read, self.price_written)
        if self.budget is not None and None in prices:
            return "`budget` needs `price_read` and `price_written`"
        if (self.price_read is None) != (self.price_written is None):
            return "`price_read` and `price_written` go together"
        return None

    def _explain_key_refusal(self) -> str | None:
        """Why the key may not be sent to the address; None where it may."""
        if self.key_env is None or self.base_url is None:
            return None
        if why := secrets.explain_name_refusal(self.key_env, self.base_url):
            return f"key_env: {why}"
        if why := addresses.explain_key_refusal(self.base_url):
            return (
                f"base_url, to which the value of {self.key_env} would be sent, {why}"
            )
        return None

    def bound_cost(self, read: int, written: int) -> float | None:
        """What so many tokens cost; None where no prices are said."""
        if self.price_read is None or self.price_written is None:
            return None
        return (read * self.price_read + written * self.price_written) / MILLION


class MakeSettings(Strict):
    """Which maker makes the source's examples of those in its files, and who is asked."""

    rft: RftSettings | None = Field(
        default=None,
        description=(
            "Rejection-sampling fine-tuning: right answers of a model to problems whose "
            "answer is a number (GSM8K's format). {} = as published."
        ),
    )
    instag: InstagSettings | None = Field(
        default=None,
        description=(
            "InsTag: tags of the source's dialogues by a model, normalised, for "
            "`keep_tags` and `drop_tags`; and few diverse dialogues, if wanted. {} = as "
            "published, without the embeddings of tags."
        ),
    )
    paraphrases: ParaphraseSettings | None = Field(
        default=None,
        description=(
            "Wordings of an instruction or of every question, which differ from each "
            "other and hold what they must (DELIA)."
        ),
    )
    by: AskedSettings | None = Field(
        default=None,
        description=(
            "Who is asked. Null means the run's own model, before it is trained and "
            "before tokens are added."
        ),
    )

    @model_validator(mode="after")
    def _one_maker(self) -> "MakeSettings":
        named = self._list_makers()
        if len(named) != 1:
            known = ", ".join(sorted(MAKER_KEYS))
            raise ValueError(
                f"`make` needs one maker, and has {len(named)}; of {known}"
            )
        return self

    def _list_makers(self) -> list[str]:
        return [key for key in MAKER_KEYS if getattr(self, key) is not None]

    @property
    def maker(self) -> str:
        """The name of the maker."""
        return self._list_makers()[0]

    @property
    def of_maker(self) -> MakerSettings:
        """The maker's own settings."""
        return getattr(self, self.maker)

    @property
    def is_on_server(self) -> bool:
        """Whether a model at an address is asked."""
        return self.by is not None and self.by.base_url is not None

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes two sets the same, but for items, model and template."""
        return {"maker": self.maker, "settings": self.of_maker.recipe}


MAKER_KEYS = tuple(key for key in MakeSettings.model_fields if key != "by")
