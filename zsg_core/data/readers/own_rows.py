"""Makes examples of rows of somebody's own, by the fields that say what stands where."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

from zsg_core.data.examples import Example, Turn
from zsg_core.data.readers import keys
from zsg_core.data.readers.ask import make_asker
from zsg_core.data.readers.dialogue import ASSISTANT, SIDES, USER, pair_turns
from zsg_core.data.readers.entities import make_entity_parser
from zsg_core.data.readers.fields import (
    SHOWN,
    Fields,
    Getter,
    is_absent,
    make_getter,
    read_list,
    read_optional,
    read_text,
)
from zsg_core.data.readers.format import Parse
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.own_choices import (
    Finish,
    make_choices,
    make_labels,
    make_scored_choices,
)

NAME = "records"
LONGEST_ID = 500  # characters
# the keys under which a message says who speaks and what, in the order of asking
SPEAKERS = ("role", "from", "speaker", "author")
WORDS = ("content", "value", "text", "utterance", "message")
PART_TEXTS = ("text", "reasoning", "tool_call")

# the turns of a row and the system text that its messages hold
Dialogue = tuple[tuple[Turn, ...], str]


def make_parser(fields: Fields) -> Parse[Any]:
    """A function that makes the example of a row of `fields.make_row_type`.

    Malformed for a row that lacks what an example needs. It remembers the ids that it
    has met, and so is of one reading.
    """
    columns = fields.columns
    read_task = _make_task_reader(fields, columns)
    make_id = _make_id_maker(fields, columns)
    if fields.words is not None:
        return make_entity_parser(fields, read_task, make_id)
    read_dialogue = _make_dialogue_reader(fields, columns)
    finish = _make_finisher(fields, columns)
    is_text = fields.text is not None

    def parse(row: Any, name: str, intake: Intake) -> list[Example]:
        turns, system = read_dialogue(row, intake)
        task = read_task(row, name)
        if finish is None:
            example_id = make_id(row, task, intake)
            example = Example(
                id=example_id, task=task, turns=turns, system=system, is_text=is_text
            )
            return [example]
        draft = Example(id="", task=task, turns=turns, system=system, is_text=is_text)
        finished = finish(row, draft, intake)
        # last, so that a row that is none takes no number
        example_id = make_id(row, task, intake)
        return [structs.replace(finished, id=example_id)]

    return parse


def _make_dialogue_reader(
    fields: Fields, columns: Sequence[str]
) -> Callable[[Any, Intake], Dialogue]:
    """A function that reads what is asked and answered in a row."""
    if fields.messages is not None:
        return _MessageReader(fields, columns).read
    if fields.text is not None:
        return _make_text_reader(fields.text, columns)
    read_prompt = _make_question_reader(fields, columns)
    if fields.choice_scores is not None:
        # the answer is the best of the choices, which are looked at later
        return lambda row, intake: (((read_prompt(row), ""),), "")
    assert fields.answer is not None, "a prompt goes with an answer"
    answer_path = fields.answer
    get_answer = make_getter(answer_path, columns)

    def read_pair(row: Any, intake: Intake) -> Dialogue:
        prompt = read_prompt(row)
        answer = get_answer(row)
        if answer.__class__ is not str:
            answer = _read_answer(answer, answer_path)
        return ((prompt, answer),), ""

    return read_pair


def _make_question_reader(
    fields: Fields, columns: Sequence[str]
) -> Callable[[Any], str]:
    """A function that says what is asked in a row: a column, several, or a wording."""
    if fields.ask is not None:
        getters = {path: make_getter(path, columns) for path in fields.asked}
        return make_asker(fields.ask, getters)
    first, *further = fields.prompt
    if further:
        return _make_joined_prompt(fields.prompt, columns)
    return _make_prompt(first, columns)


def _make_prompt(path: str, columns: Sequence[str]) -> Callable[[Any], str]:
    get = make_getter(path, columns)

    def read_prompt(row: Any) -> str:
        text = get(row)
        if text.__class__ is not str:
            text = read_text(text, path)
        if not text or text.isspace():
            raise Malformed(f"`{path}` is blank")
        return text

    return read_prompt


def _make_joined_prompt(
    paths: Sequence[str], columns: Sequence[str]
) -> Callable[[Any], str]:
    """Several columns as one prompt: those that are there and not blank, each on a line
    of its own."""
    getters = [(path, make_getter(path, columns)) for path in paths]

    def read_prompt(row: Any) -> str:
        texts: list[str] = []
        for number, (path, get) in enumerate(getters):
            value = get(row)
            if number and is_absent(value):
                continue
            text = read_text(value, path)
            if text.strip():
                texts.append(text)
        if not texts:
            raise Malformed(f"{', '.join(paths)} are blank")
        return "\n".join(texts)

    return read_prompt


def _make_text_reader(
    path: str, columns: Sequence[str]
) -> Callable[[Any, Intake], Dialogue]:
    """A function that reads a raw text: nothing is asked, and all of it is learnt."""
    get = make_getter(path, columns)

    def read_whole_text(row: Any, intake: Intake) -> Dialogue:
        value = get(row)
        text = read_text(value, path)
        if not text.strip():
            raise Malformed(f"`{path}` is blank")
        return (("", text),), ""

    return read_whole_text


def _read_answer(value: Any, path: str) -> str:
    """An answer; of a list of right ones the first. Malformed for none."""
    if not isinstance(value, list):
        return read_text(value, path)
    if not value:
        raise Malformed(f"`{path}` is an empty list of answers")
    return read_text(value[0], f"{path}[0]")


def _make_task_reader(
    fields: Fields, columns: Sequence[str]
) -> Callable[[Any, str], str]:
    """A function that says of which task a row is; `name` is what its file or folder
    says."""
    if fields.task_from is not None:
        return lambda row, name: name
    if fields.task is None:
        return lambda row, name: NAME
    path = fields.task
    task_else = fields.task_else
    get = make_getter(path, columns)

    def read_task(row: Any, name: str) -> str:
        task = get(row)
        if task_else is not None and (is_absent(task) or task == ""):
            return task_else
        if task.__class__ is not str:
            task = read_text(task, path)
        return task.strip()

    return read_task


def _make_id_maker(
    fields: Fields, columns: Sequence[str]
) -> Callable[[Any, str, Intake], str]:
    """A function that names a row of a task: by its own id, or else by its number."""
    if fields.id is None:
        return lambda row, task, intake: intake.next_id(task)
    path = fields.id
    get = make_getter(path, columns)
    met: set[str] = set()

    def read_id(row: Any, task: str, intake: Intake) -> str:
        intake.next_id(task)  # which refuses a name that does not show
        own_id = get(row)
        if own_id.__class__ is not str:
            own_id = read_text(own_id, path)
        if own_id in met:
            raise Malformed(f"the id {own_id!r} stands more than once")
        if not own_id or len(own_id) > LONGEST_ID or not own_id.isprintable():
            raise Malformed(
                f"`{path}` is {own_id[:SHOWN]!r}, no id: 1 to {LONGEST_ID} characters that print"
            )
        met.add(own_id)
        return own_id

    return read_id


def _make_finisher(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that puts into an example what few data have; None where these have
    nothing of it."""
    makers = (
        _make_references,
        make_choices,
        make_scored_choices,
        make_labels,
        _make_definition,
        _make_system,
        _make_tags,
    )
    steps: list[Finish] = []
    for make in makers:
        step = make(fields, columns)
        if step is not None:
            steps.append(step)
    if not steps:
        return None

    def finish(row: Any, example: Example, intake: Intake) -> Example:
        for step in steps:
            example = step(row, example, intake)
        return example

    return finish


def _make_system(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that gives an example the system text that stands beside its dialogue."""
    if fields.system is None:
        return None
    path = fields.system
    get = make_getter(path, columns)

    def put_system(row: Any, example: Example, intake: Intake) -> Example:
        if example.system:  # which the messages hold themselves
            return example
        value = get(row)
        system = read_optional(value, path, intake)
        return structs.replace(example, system=system)

    return put_system


def _make_tags(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that gives an example the tags of its row, where it has any."""
    if fields.tags is None:
        return None
    path = fields.tags
    get = make_getter(path, columns)

    def put_tags(row: Any, example: Example, intake: Intake) -> Example:
        value = get(row)
        if is_absent(value):
            return example
        if isinstance(value, list):
            tags = read_list(value, path)
        else:
            tags = [read_text(value, path)]
        return structs.replace(example, tags=tuple(tags))

    return put_tags


def _make_references(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that keeps the several right answers of a row, of which the turn has
    the first."""
    if fields.answer is None or fields.has_choices:
        return None
    path = fields.answer
    get = make_getter(path, columns)

    def put_references(row: Any, example: Example, intake: Intake) -> Example:
        value = get(row)
        if not isinstance(value, list):
            return example
        answers = read_list(value, path)
        references = tuple(dict.fromkeys(answers))
        return structs.replace(example, references=references)

    return put_references


def _make_definition(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that gives an example the definition of its task, which is the same in
    all rows of the task."""
    if fields.definition is None:
        return None
    path = fields.definition
    get = make_getter(path, columns)
    definitions: dict[str, str] = {}

    def put_definition(row: Any, example: Example, intake: Intake) -> Example:
        value = get(row)
        definition = read_text(value, path)
        first = definitions.setdefault(example.task, definition)
        if definition != first:
            raise Malformed(
                f"`{path}` is another than in the rows of {example.task[:SHOWN]} before it: a"
                " task has one definition"
            )
        return structs.replace(example, definition=definition)

    return put_definition


class _MessageReader:
    """Reads a dialogue from a column of messages, whatever their keys are called."""

    def __init__(self, fields: Fields, columns: Sequence[str]) -> None:
        assert fields.messages is not None, "messages stand in a column"
        self._path = fields.messages
        self._get: Getter = make_getter(self._path, columns)
        # the keys of who speaks, and of what, in the order of asking
        self._speakers: Sequence[str] = SPEAKERS
        if fields.role is not None:
            self._speakers = (fields.role,)
        self._words: Sequence[str] = WORDS
        if fields.content is not None:
            self._words = (fields.content,)
        self._roles = dict(fields.roles)
        # the roles of speakers that are written as they are known
        self._plain_roles: dict[str, str] = {}
        for name in (*SIDES, *self._roles):
            if name == name.strip():
                self._plain_roles[name] = self._roles.get(name, name)
        # of these, who asks and who answers
        self._askers = self._list_speakers(USER)
        self._answerers = self._list_speakers(ASSISTANT)
        # the keys that messages were last found to have
        self._usual_keys = (self._speakers[0], self._words[0])

    def _list_speakers(self, side: str) -> frozenset[str]:
        """The speakers of a side, as they are written plainly."""
        return frozenset(
            name for name, role in self._plain_roles.items() if SIDES.get(role) == side
        )

    def read(self, row: Any, intake: Intake) -> Dialogue:
        """The turns and the system text. Malformed for messages that are no dialogue,
        UnsupportedRow for what zsg does not do."""
        value = self._get(row)
        if is_absent(value):
            raise Malformed(f"has no `{self._path}`")
        if not isinstance(value, list):
            raise Malformed(f"`{self._path}` is no list of messages")
        plain = self._pair_plain(value)
        if plain:
            return plain, ""
        messages: list[tuple[str, str]] = []
        for number, item in enumerate(value):
            message = self._read_message(number, item, intake)
            messages.append(message)
        system, turns = pair_turns(messages, intake)
        return turns, system

    def _pair_plain(self, messages: Sequence[Any]) -> tuple[Turn, ...] | None:
        """The turns of messages that are as most are: each of two keys, the usual ones,
        with a user and an assistant that speak by turns; None of others."""
        speaker_key, words_key = self._usual_keys
        names, others = self._askers, self._answerers
        texts: list[str] = []
        for message in messages:
            if message.__class__ is not dict or len(message) != 2:
                return None
            speaker, text = message.get(speaker_key), message.get(words_key)
            if speaker.__class__ is not str or text.__class__ is not str:
                return None
            if speaker not in names:
                return None
            texts.append(text)
            names, others = others, names
        if len(texts) % 2:
            return None
        return tuple(zip(texts[::2], texts[1::2], strict=True))

    def _read_message(
        self, number: int, message: Any, intake: Intake
    ) -> tuple[str, str]:
        """Who speaks and what. A text alone is the user's and the assistant's by turns."""
        if isinstance(message, str):
            role = ASSISTANT if number % 2 else USER
            return role, message
        location = f"{self._path}[{number}]"
        if not isinstance(message, dict):
            raise Malformed(f"`{location}` is no message")
        speaker = _first_of(message, self._speakers)
        content = _first_of(message, self._words)
        if len(message) == 2 and content.__class__ is str:
            # as most are: who speaks, what, and nothing else
            role = self._plain_roles.get(speaker) if speaker.__class__ is str else None
            if role is not None:
                self._usual_keys = self._find_keys(message)
                return role, content
        if speaker is None or content is None:
            reason = self._explain_keys(location, message)
            raise Malformed(reason)
        name = read_text(speaker, location)
        role = self._find_role(name, location)
        marks = self._list_marks(message)
        keys.check_message_values(location, role, marks, intake)
        text = _read_content(content, location)
        return role, text

    def _find_keys(self, message: Mapping[str, Any]) -> tuple[str, str]:
        """The keys of a message that has who speaks and what, and nothing else."""
        speaker = next(key for key in self._speakers if key in message)
        words = next(key for key in self._words if key in message)
        return speaker, words

    def _explain_keys(self, location: str, message: Mapping[str, Any]) -> str:
        """What the keys of a message lack."""
        speakers = " or ".join(self._speakers)
        words = " or ".join(self._words)
        present = ", ".join(message)[: 2 * SHOWN]
        return (
            f"`{location}` needs {speakers}, and {words}; it has {present}. Name its keys in"
            " fields.role and fields.content"
        )

    def _list_marks(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a message beside who speaks and what."""
        named = (*self._speakers, *self._words)
        marks: dict[str, Any] = {}
        for key, value in message.items():
            # a null marks nothing
            if value is not None and key not in named:
                marks[key] = value
        return marks

    def _find_role(self, speaker: str, location: str) -> str:
        """Which role a speaker has. Malformed for one that nobody has named."""
        name = speaker.strip()
        role = self._roles.get(name, name.lower())
        if role in SIDES:
            return role
        roles = ", ".join(SIDES)
        raise Malformed(
            f"`{location}`: {name[:SHOWN]!r} is no known role ({roles}); say whose it is, as"
            " fields.roles: {NAME: user, NAME: assistant}"
        )


def _first_of(message: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of these keys that a message has; None where it has none."""
    for name in names:
        value = message.get(name)
        if value is not None:
            return value
    return None


def _read_content(content: Any, location: str) -> str:
    """What a message says: a text, or the texts of its parts, each on a line."""
    if not isinstance(content, list):
        return read_text(content, location)
    texts: list[str] = []
    for number, item in enumerate(content):
        text = _read_part(item)
        if text is None:
            raise Malformed(f"`{location}`, part {number}, is no text")
        texts.append(text)
    return "\n".join(texts)


def _read_part(item: Any) -> str | None:
    """The text of a part of a message; None where it is a picture, or nothing."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        return None
    if item.get("type", "text") not in PART_TEXTS:
        return None
    text = _first_of(item, ("text", "value"))
    return text if isinstance(text, str) else None
