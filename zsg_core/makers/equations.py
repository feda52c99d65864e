"""Reads the equations that answers to GSM8K's problems are written with,
`<<3*4=12>>`, and works them out without running them.

The authors of RFT hand the text to Python's eval. Here it is parsed as an expression of
numbers and + - * / // % **, and walked; anything else is no equation that holds. On all
equations of GSM8K both agree.
"""

import ast
import math
import operator
import re
from collections.abc import Callable

OPENS, CLOSES = "<<", ">>"
# what an expression may be written with; no name, no text, no call
WRITTEN = re.compile(r"[0-9.eE+\-*/%() \t]+")
TOLERANCE = 1e-3
MOST_CHARACTERS = 200  # of an expression; GSM8K's longest has 60
MOST_EXPONENT = 64.0
MOST_BASE = 1e6  # of a power

Number = int | float

_OPERATIONS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class NoNumber(Exception):
    """A text that is no expression of numbers, or one without a finite value."""


def list_equations(text: str) -> list[str]:
    """What stands between the marks << and >>, in order.

    Looked for mark by mark: a pattern would look from each << over all that follows,
    and a model may reply with nothing but these.
    """
    found: list[str] = []
    start = text.find(OPENS)
    while start >= 0:
        first = start + len(OPENS)
        end = text.find(CLOSES, first)
        if end < 0:
            break
        found.append(text[first:end])
        start = text.find(OPENS, end + len(CLOSES))
    return found


def join_equations(equations: list[str]) -> str:
    """The key of a path of reasoning: its equations in order, blanks out. A path without
    any has the empty key."""
    return "|".join(equation.replace(" ", "") for equation in equations)


def holds(equation: str) -> bool:
    """Whether the value of what stands before the first `=` is the number between it and
    the second, to 1e-3. False for what is no equation."""
    sides = equation.split("=")
    if len(sides) < 2:
        return False
    try:
        value = compute(sides[0])
        result = float(sides[1])
    except (NoNumber, ValueError):
        return False
    return abs(value - result) < TOLERANCE


def compute(text: str) -> float:
    """The value of an expression of numbers. NoNumber for anything else, and for a value
    that is not finite."""
    written = text.strip()
    if len(written) > MOST_CHARACTERS or not WRITTEN.fullmatch(written):
        raise NoNumber(text)
    try:
        tree = ast.parse(written, mode="eval")
        value = float(_walk(tree.body))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        raise NoNumber(text) from None
    if not math.isfinite(value):
        raise NoNumber(text)
    return value


def _walk(node: ast.expr) -> Number:
    """The value of a node, of numbers and the four operations' kind only."""
    if isinstance(node, ast.Constant):
        return _take_number(node.value)
    if isinstance(node, ast.UnaryOp):
        return _apply_sign(node)
    if isinstance(node, ast.BinOp):
        left = _walk(node.left)
        right = _walk(node.right)
        if isinstance(node.op, ast.Pow):
            return _raise_to_power(left, right)
        operation = _OPERATIONS.get(type(node.op))
        if operation is not None:
            return operation(left, right)
    raise NoNumber("no arithmetic")


def _take_number(value: object) -> Number:
    """A number as it is written. NoNumber for a text, a truth value or a complex
    number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoNumber("no number")
    return value


def _apply_sign(node: ast.UnaryOp) -> Number:
    """The value behind a sign."""
    value = _walk(node.operand)
    if isinstance(node.op, ast.USub):
        return -value
    if isinstance(node.op, ast.UAdd):
        return value
    raise NoNumber("no sign")


def _raise_to_power(base: Number, exponent: Number) -> Number:
    """A power of bounded size: a text must not keep a machine busy."""
    if abs(exponent) > MOST_EXPONENT or abs(base) > MOST_BASE:
        raise NoNumber("too large a power")
    power = base**exponent
    return _take_number(power)
