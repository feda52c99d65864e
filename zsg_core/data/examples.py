"""Says what one instruction example is, whatever the format that it was published in."""

import msgspec

Turn = tuple[str, str]  # what the user says, what the assistant answers


class FewShot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Solved examples of the same task that stand before a training example:
    (question, answer) pairs in the order shown.

    `turns` says how they are written and `loss_on` which answers are learnt, in the
    words of zsg_core.data.few_shot.
    """

    shots: tuple[Turn, ...]
    turns: str
    loss_on: str


class Example(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One instruction example: a dialogue of one or more turns, or a task's definition
    with an input.

    `id` is `<task>:<position among the task's examples>`, or a published id that is
    unique; `task` is what caps, held-out lists and orders count by. `definition` and
    `shots`, (input, output) pairs, are those of Natural Instructions and stand apart,
    since the template decides how they are shown. `references` are the answers that
    would be right in the last turn, where several were published; the turn holds one of
    them. `options` are the different choices for the last answer that were published
    with it, written as the answer is, and one is the answer. `is_text`: whether it is a
    raw text, the answer to an empty question: no template is put around it, and all of
    it is learnt. `few_shot` are drawn from other training examples, and no
    part of the data.
    """

    id: str
    task: str
    turns: tuple[Turn, ...]
    system: str = ""
    definition: str = ""
    shots: tuple[Turn, ...] = ()
    references: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    is_text: bool = False
    few_shot: FewShot | None = None

    @property
    def input(self) -> str:
        """What the user says first."""
        return self.turns[0][0]

    @property
    def answer(self) -> str:
        """What the assistant says last: what is scored."""
        return self.turns[-1][1]

    @property
    def right_answers(self) -> tuple[str, ...]:
        """All answers that are right in the last turn."""
        return self.references or (self.answer,)

    def answering(self, answer: str) -> "Example":
        """The same example with another last answer."""
        return msgspec.structs.replace(
            self, turns=(*self.turns[:-1], (self.turns[-1][0], answer))
        )
