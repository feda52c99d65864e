"""Says the settings of metrics that compare an answer's text with its references: by
what tokens, in which case."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from zsg_core.metrics import rouge, translation
from zsg_core.settings.fields import Strict


class BleuSettings(Strict):
    """How metric bleu is taken."""

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = Field(
        default="13a",
        description=(
            "sacreBLEU's tokenizer. `13a` is the usual one and knows ASCII punctuation; "
            "`intl` knows that of all scripts, as Icelandic's quotation marks; `zh` is "
            "for Chinese, `char` for scripts without blanks."
        ),
    )
    lowercase: bool = Field(
        default=False, description="Whether capitals count as small letters."
    )


class RougeSettings(Strict):
    """How metrics rouge1 and rougeL are taken."""

    tokenizer: Literal["english", "unicode", "characters"] = Field(
        default="english",
        description=(
            "What a word is. `english`: letters a to z and digits, stemmed, as in the "
            "papers; an answer in another script scores 0. `unicode`: letters and digits "
            "of any script, not stemmed. `characters`: each of them by itself, for "
            "scripts without blanks."
        ),
    )


def define_text_scores(
    keys: Iterable[str], bleu: BleuSettings, tokenizer: str
) -> dict[str, dict[str, Any]]:
    """By key, what decides its score beside the answers. `tokenizer`: of ROUGE; the
    papers' adds nothing, as keys of before have nothing."""
    definitions: dict[str, dict[str, Any]] = {}
    for key in keys:
        metric = key.partition("/")[0]
        if metric == translation.BLEU:
            definitions[key] = translation.define_bleu(
                bleu.tokenize, lowercase=bleu.lowercase
            )
        elif metric in translation.WORD_ORDERS:
            order = translation.WORD_ORDERS[metric]
            definitions[key] = translation.define_chrf(order)
        elif metric in rouge.TYPES and tokenizer != rouge.ENGLISH:
            definitions[key] = {rouge.TOKENIZER: tokenizer}
    return definitions
