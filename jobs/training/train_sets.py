"""Opens what a train job trains and tests on: the arrangement and the test set of its
recipe, as token ids."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jobs.contract.folder import read_json
from jobs.contract.job_file import TrainJob
from jobs.contract.prepared import read_arrangement_meta
from jobs.model.vocabulary import Vocabulary, load_vocabulary, refuse_lossy
from jobs.preparing.corpus import Corpus
from jobs.training.batches import TokenizedSet
from jobs.training.task_scales import compute_scales
from jobs.training.tokens import Encode, how_encoded, prepare_tokens, tokens_id
from zsg_core.data import few_shot, prompts
from zsg_core.data.examples import Example
from zsg_core.data.prompts import ANSWER, CHAT, EncodedExample, Template
from zsg_core.digest import digest_ids
from zsg_core.errors import ClusterError, UserError
from zsg_core.families.registry import position_count

# examples of the training list, and of the test set, that a tokenizer is tried on
TRIED = 4
# more tokens than any example has: what is encoded within it is cut nowhere
UNLIMITED = 1 << 30


def train_and_test(job: TrainJob) -> tuple[TokenizedSet, TokenizedSet]:
    """The training list in its order, and the test set. Training tokens are made by the
    first job that needs them.

    ClusterError where what prepare made is not what it was; UserError for prompts
    beyond the model's reach.
    """
    workspace, made_ids, base = job.workspace, job.made, job.base_folder
    arrangement = workspace.arrangement(made_ids.arrangement)
    stage, corpus = job.stage, Corpus(workspace, made_ids.corpus)
    longest = stage["train"]["max_length"]
    context = position_count(read_json(base / "config.json") or {})
    if longest > context:
        raise UserError(
            f"train.max_length {longest} is beyond the model's {context} positions; lower it"
        )
    vocabulary = load_vocabulary(base, job.recipe["base"])
    refuse_lossy(base, vocabulary, _some_texts(corpus))
    encode = encoder_of(stage, vocabulary)
    ids = ordered_ids(arrangement)
    tokens_folder = workspace.tokens(tokens_id(job.recipe, made_ids.arrangement))
    encoded = prepare_tokens(tokens_folder, partial(_in_order, ids, corpus), encode)
    train = TokenizedSet(ids, encoded, learnt=list_targets(stage, corpus, ids))
    _refuse_repeated(train)
    train.scales = compute_scales(stage["train"], corpus, ids, train.learnt, base)
    train.eos = find_trained_end(stage, vocabulary)
    return (
        train,
        TokenizedSet(
            corpus.test.ids,
            [encode(example) for example in corpus.test],
            corpus.test.tasks,
        ),
    )


def list_targets(
    stage: dict[str, Any], corpus: Corpus, ids: Sequence[str]
) -> list[str]:
    """Which tokens are learnt of each example of a stage's list: by the stage's rule, or
    by that of its source."""
    rule = stage["train"]["loss_on"]
    of_source = stage["train"].get("loss_on_of")
    if not of_source:
        return [rule] * len(ids)
    source_of = dict(zip(corpus.train.ids, corpus.train.sources, strict=True))
    return [of_source.get(source_of[example_id], rule) for example_id in ids]


def _refuse_repeated(train: TokenizedSet) -> None:
    """UserError where more than answers is to be learnt of examples that are several
    texts: earlier turns stand in each of them, answers among them."""
    if set(train.targets) <= {ANSWER}:
        return
    for example_id, encoded, rule in zip(
        train.ids, train.encoded, train.targets, strict=True
    ):
        if rule != ANSWER and encoded.sequences:
            raise UserError(
                f"train.loss_on: {rule}: the chat template writes {example_id} as"
                f" {len(encoded.sequences)} texts, one for each answer, so that earlier turns"
                " would be learnt several times, and their answers as prompts; use"
                " train.loss_on: answer"
            )


def find_trained_end(stage: dict[str, Any], vocabulary: Vocabulary) -> int:
    """The token that a stage trains answers to end with: the chat template's end of turn
    where it writes with one, else the tokenizer's end of sequence."""
    template = Template.from_recipe(stage["data"]["template"])
    end_of_turn = None
    if template.name == CHAT:
        end_of_turn = vocabulary.open_chat(template).end_of_turn
    return vocabulary.eos if end_of_turn is None else end_of_turn


def test_set(
    job: TrainJob, vocabulary: Vocabulary
) -> tuple[TokenizedSet, Sequence[Example]]:
    """What a train job tests on, as token ids and as examples, for whoever evaluates
    its snapshots."""
    workspace = job.workspace
    examples = list(Corpus(workspace, job.made.corpus).test)
    encode = encoder_of(job.stage, vocabulary)
    encoded = [encode(example) for example in examples]
    return TokenizedSet(
        [e.id for e in examples], encoded, [e.task for e in examples]
    ), examples


def encoder_of(
    stage: dict[str, Any], vocabulary: Vocabulary, max_length: int | None = None
) -> Encode:
    """How a stage of a recipe turns an example into token ids; within another
    `max_length`, if one is given."""
    how = how_encoded(stage)
    return make_encoder(
        vocabulary,
        Template.from_recipe(how["template"]),
        max_length or how["max_length"],
        how["truncate"],
    )


def make_encoder(
    vocabulary: Vocabulary,
    template: Template,
    max_length: int,
    truncate: str = "prompt",
) -> Encode:
    """How a run turns an example into token ids."""
    encode = _make_plain_encoder(vocabulary, template)
    return partial(
        few_shot.encode_with_shots,
        encode=partial(encode, max_length=max_length, truncate=truncate),
        encode_whole=partial(encode, max_length=UNLIMITED),
        max_length=max_length,
    )


def _make_plain_encoder(
    vocabulary: Vocabulary, template: Template
) -> Callable[..., EncodedExample]:
    """How an example without shots becomes token ids, within `max_length` of them."""
    encode = partial(
        prompts.encode_example,
        template=template,
        tokenize=vocabulary.tokenize,
        bos=vocabulary.bos,
        eos=vocabulary.eos,
    )
    if template.name != CHAT:
        return encode
    encoder = vocabulary.open_chat(template)

    def encode_chat(example: Example, **within: Any) -> EncodedExample:
        if example.is_text:  # which no template is put around
            return encode(example, **within)
        return encoder.encode(example, **within)

    return encode_chat


def ordered_ids(arrangement: Path) -> list[str]:
    """The ids as an arrangement's `ids` file lists them: the one place where order
    enters training."""
    ids = (arrangement / "ids").read_text(encoding="utf-8").splitlines()
    meta = read_arrangement_meta(arrangement)
    if not meta or digest_ids(ids) != meta.ids_digest:
        raise ClusterError(
            f"{arrangement}: `ids` is not the list that its meta.json describes; remove the folder"
        )
    return ids


def _some_texts(corpus: Corpus) -> Iterator[str]:
    """Texts of a few examples from all over the data, by which a tokenizer is tried."""
    for examples in (corpus.train, corpus.test):
        for index in range(0, len(examples), max(1, len(examples) // TRIED)):
            for turn in examples[index].turns:
                yield from turn


def _in_order(ids: list[str], corpus: Corpus) -> list[Example]:
    """The examples of the corpus as `ids` list them; an id that stands there several
    times gives its example as often. Raises KeyError for an id that the corpus has
    not."""
    index_of = {made_id: index for index, made_id in enumerate(corpus.train.ids)}
    return [corpus.train[index_of[example_id]] for example_id in ids]
