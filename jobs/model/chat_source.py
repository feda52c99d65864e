"""Reads the source of a chat template: what it looks for in an answer, and whether it
writes the day's date."""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from zsg_core.data import prompts
from zsg_core.errors import UserError

CLOCK = "strftime_now"  # transformers' function for templates
_MARKING = {"generation"}
DATE = "date_string"  # by which templates take another date


class _GenerationTag(Extension):
    """Reads `{% generation %}`, by which templates mark what an assistant says."""

    tags = _MARKING

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        """What stands within the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def parse_template(source: str) -> nodes.Template:
    """A template as a tree. UserError for what is none."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    try:
        return environment.parse(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise UserError(
            f"the chat template cannot be read: {str(error)[:200]}; take the model's own, or leave"
            " data.template out"
        ) from None


def find_sought_words(tree: nodes.Template) -> frozenset[str]:
    """The words that a template may look for in what is said, such as `</think>`: those
    to the left of `in`, and the arguments of methods and filters."""
    words: set[str] = set()
    for comparison in tree.find_all(nodes.Compare):
        if any(operand.op in ("in", "notin") for operand in comparison.ops):
            words.update(_list_texts([comparison.expr]))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr):
            words.update(_list_texts(call.args))
    for used_filter in tree.find_all(nodes.Filter):
        words.update(_list_texts(used_filter.args))
    return frozenset(words)


def _list_texts(arguments: list[nodes.Expr]) -> Iterator[str]:
    """The texts among arguments, but for blank ones."""
    for argument in arguments:
        if not isinstance(argument, nodes.Const):
            continue
        value = argument.value
        if isinstance(value, str) and value.strip():
            yield value


def find_date_problem(tree: nodes.Template, arguments: Mapping[str, Any]) -> str | None:
    """Why a template's text would change with the day; None where it would not, given
    these arguments. Plan and jobs judge by it."""
    if not writes_date(tree):
        return None
    if takes_date(tree) and DATE in arguments:
        return None
    return prompts.explain_date(takes_date=takes_date(tree))


def writes_date(tree: nodes.Template) -> bool:
    """Whether a template asks for the day's date."""
    return any(name.name == CLOCK for name in tree.find_all(nodes.Name))


def takes_date(tree: nodes.Template) -> bool:
    """Whether a template asks for the day's date only where no `date_string` is given."""
    guarded: set[int] = set()
    for condition in (*tree.find_all(nodes.If), *tree.find_all(nodes.CondExpr)):
        if _names_date(condition.test):
            guarded |= _list_clocks(condition)
    return _list_clocks(tree) == guarded


def _list_clocks(tree: nodes.Node) -> set[int]:
    """The calls in a tree that ask for the day's date."""
    return {id(call) for call in tree.find_all(nodes.Call) if _is_clock(call)}


def _is_clock(call: nodes.Call) -> bool:
    name = call.node
    return isinstance(name, nodes.Name) and name.name == CLOCK


def _names_date(test: nodes.Node) -> bool:
    if isinstance(test, nodes.Name):
        return test.name == DATE
    return any(name.name == DATE for name in test.find_all(nodes.Name))
