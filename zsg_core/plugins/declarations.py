"""Reads what a plugin declares from its syntax tree. Nothing of it is run or imported.

A declaration is a function at the top level of a file under `@zsg.KIND("name", …)`, whose
arguments are written out. So whoever reads the file sees what there is, and so does
`zsg plan`; what could be a declaration and is none is refused with its line.

The digest of a declared thing is over its own lines, all other lines of the file that
belong to a statement at its top level, but for the other declared functions and the
docstring, and the files beside it that it imports. So a metric that is edited leaves an
order of the same file what it was.
"""

import ast
import hashlib
import io
import re
import tokenize
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from zsg_core.registry import AT

METRIC, ORDER, SCORE, READER = KINDS = ("metric", "order", "score", "reader")
MOST_BYTES = 100_000
DIGITS = 16  # of a digest in names
MOST_SIBLINGS = 20
MODULE = "zsg"
# the arguments behind the name, and of what type each is
OPTIONS: Mapping[str, Mapping[str, type]] = {
    METRIC: {"of": str, "higher_is_better": bool},
    ORDER: {"seeded": bool},
    SCORE: {"passes": int},
    READER: {"files": str},
}
# what a metric is of: what a model says, or what it makes of options
ANSWERS, CHOICES = METRIC_SOURCES = ("answers", "choices")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FILES = re.compile(r"\*(\.[A-Za-z0-9]{1,12}){1,3}")
_ENCODINGS = ("utf-8", "utf-8-sig")
# of characters that a terminal or an editor may not show, or by which it hides others:
# controls, marks of direction, separators of lines that are none to Python
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_SEEN = "\t\n\f"
_SAMPLE = '@zsg.metric("closeness")'
# what one may look for among the kinds, and how it is done instead
_ABSENT = {
    "family": (
        ". A family of models needs no plugin: what transformers has is trained as it is,"
        " and counted from the tensors of its folder"
    ),
    "maker": "; makers of data are modules of zsg's",
    "optimizer": "; optimizers are modules of zsg's",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class BadPlugin(Exception):
    """Why a plugin cannot be used, and on which line of which file."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(message)
        self.file, self.line, self.message = file, line, message


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One thing that a plugin declares. `line`: of its function; `about`: the first line
    of its docstring; `digest`: of all that decides what it does."""

    kind: str
    name: str
    file: str
    line: int
    digest: str
    about: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    @property
    def full_name(self) -> str:
        """The name with the digest, by which it stands in recipes and registries."""
        return f"{self.name}{AT}{self.digest}"

    @property
    def is_of_choices(self) -> bool:
        """Whether it is a metric of what a model makes of options."""
        return self.options.get("of") == CHOICES

    @property
    def words(self) -> str:
        """What it is called in messages."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class PluginFile:
    """A plugin: `name` as the grid gives it, its bytes as they were read, what it
    declares. `siblings`: the names of the other plugins that it imports, with those that
    these import; `defined`: the names that it gives, at its top level, to functions,
    classes and values of its own, not to what it imports."""

    name: str
    content: bytes
    declared: tuple[Declared, ...] = ()
    siblings: tuple[str, ...] = ()
    defined: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """SHA-256 of the file, whole: what a user allows."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def module(self) -> str:
        """The name by which another plugin imports it."""
        return name_module(self.name)

    @property
    def text(self) -> str:
        """The file as it was read, and as it is to be run. Python would read the bytes
        once more, and find a declared encoding behind line ends that are none here."""
        return decode_text(self.content)


def decode_text(content: bytes) -> str:
    """The text of a plugin, with the line ends of Unix. UnicodeDecodeError for what is
    not written in UTF-8."""
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def name_module(file: str) -> str:
    """The name by which a file is imported."""
    return PurePosixPath(file).name.removesuffix(".py")


def read_plugins(
    contents: Mapping[str, bytes], unlisted: Collection[str] = ()
) -> tuple[PluginFile, ...]:
    """What the plugins of a grid declare. `contents`: by their names; `unlisted`: modules
    that lie beside them and are no plugins. BadPlugin for what cannot be used."""
    trees = {name: _Tree(name, content) for name, content in contents.items()}
    by_module: dict[str, list[str]] = {}
    for name in contents:
        by_module.setdefault(name_module(name), []).append(name)
    for tree in trees.values():
        tree.refuse_imports(unlisted)
        tree.refuse_vague_imports(by_module)
    plugins: list[PluginFile] = []
    for name, tree in trees.items():
        siblings = _collect_siblings(name, trees, by_module)
        sources = [trees[sibling].text for sibling in siblings]
        plugin = PluginFile(
            name=name,
            content=contents[name],
            declared=tuple(tree.list_declared(sources)),
            siblings=siblings,
            defined=frozenset(trees[name].list_defined()),
        )
        plugins.append(plugin)
    _refuse_doubles(plugins)
    return tuple(plugins)


def _refuse_doubles(plugins: Sequence[PluginFile]) -> None:
    """BadPlugin where one name is declared twice."""
    seen: dict[tuple[str, str], Declared] = {}
    for plugin in plugins:
        for declared in plugin.declared:
            first = seen.setdefault((declared.kind, declared.name), declared)
            if first is not declared:
                raise BadPlugin(
                    declared.file,
                    declared.line,
                    f"{declared.words} is declared already, {first.file}:{first.line};"
                    " give one of them another name",
                )


def _collect_siblings(
    name: str, trees: "Mapping[str, _Tree]", by_module: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The other plugins that a plugin imports, and that these import, by their names."""
    siblings_so_far: set[str] = set()
    open_names = [name]
    while open_names:
        imported = trees[open_names.pop()].imported
        siblings = {by_module[module][0] for module in imported if module in by_module}
        open_names += siblings - siblings_so_far
        siblings_so_far |= siblings
    return tuple(sorted(siblings_so_far - {name}))


class _Tree:
    """The syntax tree of a plugin. BadPlugin for a text that is no Python, or more of it
    than anybody reads."""

    def __init__(self, file: str, content: bytes) -> None:
        self.file = file
        self.text = self._decode(content)
        self._module = self._parse()
        self._lines = self.text.split("\n")
        self._nodes = list(ast.walk(self._module))
        self.imported = {module for module, _ in self._list_imports()}

    def refuse_imports(self, unlisted: Collection[str]) -> None:
        """BadPlugin where a module is imported that lies beside the plugin and would not
        be copied with it."""
        for module, line in self._list_imports():
            if module in unlisted:
                raise self._fault(
                    line,
                    f"imports {module}, which lies beside it and is not copied with it;"
                    f" name {module}.py under `plugins`, too",
                )

    def refuse_vague_imports(self, by_module: Mapping[str, Sequence[str]]) -> None:
        """BadPlugin where a module is imported of whose name there are several plugins.
        They may be, as every folder of tasks has its `utils.py`, but for what imports."""
        for module, line in self._list_imports():
            names = by_module.get(module, ())
            if len(names) > 1:
                raise self._fault(
                    line,
                    f"imports {module}, and {' and '.join(names)} have that name; rename one",
                )

    def list_declared(self, siblings: Sequence[str]) -> Iterator[Declared]:
        """What it declares, in its order. `siblings`: the texts of what it imports."""
        self._refuse_other_names()
        self._refuse_other_kinds()
        declaring: list[tuple[ast.FunctionDef, list[ast.Call]]] = []
        calls: set[int] = set()
        for node in self._module.body:
            if isinstance(node, ast.FunctionDef):
                decorators = self._list_decorators(node)
                calls.update(id(call.func) for call in decorators)
                if decorators:
                    declaring.append((node, decorators))
        self._refuse_hidden(calls)
        functions = [node for node, _ in declaring]
        for node, decorators in declaring:
            digest = self._digest(node, functions, siblings)
            for call in decorators:
                yield self._read_call(node, call, digest)

    def list_defined(self) -> Iterator[str]:
        """The names that statements at the top level give to functions, classes and
        values; none of what is imported."""
        for node in self._module.body:
            if isinstance(node, Definition):
                yield node.name
                continue
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                targets = [node.target]
            for target in targets:
                for each in ast.walk(target):
                    # of `name.attribute = …` the name is read, not given
                    if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                        yield each.id

    def _fault(self, line: int, message: str) -> BadPlugin:
        """The error of a line of this file."""
        return BadPlugin(self.file, line, message)

    def _decode(self, content: bytes) -> str:
        """The text, with the line ends of Unix: a checkout of another system must make
        no other digests. Another encoding would let Python read other lines than a
        person sees."""
        if len(content) > MOST_BYTES:
            raise self._fault(1, f"more than {MOST_BYTES:,} bytes; is this a plugin?")
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            if encoding not in _ENCODINGS:
                raise self._fault(1, f"its encoding is {encoding}; write it in UTF-8")
            text = decode_text(content)
        except (SyntaxError, UnicodeDecodeError, LookupError):
            raise self._fault(1, "is not written in UTF-8") from None
        self._refuse_unseen(text)
        return text

    def _refuse_unseen(self, text: str) -> None:
        """BadPlugin for a character by which what is shown is not what is run."""
        if text.isascii() and text.isprintable():
            return
        for place, character in enumerate(text):
            if character.isprintable() or character in _SEEN:
                continue
            if unicodedata.category(character) in _UNSEEN:
                raise self._fault(
                    text.count("\n", 0, place) + 1,
                    f"has the character U+{ord(character):04X}, which may hide what is"
                    " run from whoever reads it; write it as an escape in a text, or"
                    " take it out",
                )

    def _parse(self) -> ast.Module:
        """The tree. Warnings about odd escapes are Python's to the job, not to plan's
        terminal."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.text)
        except SyntaxError as error:
            message = f"is no Python that can be read: {error.msg}"
            raise self._fault(error.lineno or 1, message) from None
        except (RecursionError, MemoryError, ValueError):
            raise self._fault(1, "is nested too deeply to be read") from None

    def _list_imports(self) -> Iterator[tuple[str, int]]:
        """The first name of each module that is imported anywhere, with the line."""
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name.partition(".")[0], node.lineno
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    raise self._fault(
                        node.lineno,
                        "a plugin is in no package: import without the leading dot",
                    )
                yield (node.module or "").partition(".")[0], node.lineno

    def _refuse_other_names(self) -> None:
        """BadPlugin where a decorator is given another name than `zsg.KIND`."""
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name == MODULE and alias.asname is not None:
                        raise self._fault(
                            node.lineno, f"write `import zsg`, then {_SAMPLE}"
                        )
            elif isinstance(node, ast.ImportFrom) and node.module == MODULE:
                names = {alias.name for alias in node.names}
                if names & {*KINDS, "*"}:
                    raise self._fault(
                        node.lineno, f"write `import zsg`, then {_SAMPLE}"
                    )

    def _list_decorators(self, node: ast.FunctionDef) -> list[ast.Call]:
        """The calls of zsg's decorators over a function."""
        return [
            decorator
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call) and _is_ours(decorator.func)
        ]

    def _refuse_other_kinds(self) -> None:
        """BadPlugin for a decorator of zsg's that is no kind of declaration."""
        for node in self._nodes:
            decorators = node.decorator_list if isinstance(node, Definition) else []
            for decorator in decorators:
                named = decorator.func if isinstance(decorator, ast.Call) else decorator
                if not _is_of_module(named) or named.attr in KINDS:
                    continue
                problem = (
                    f"zsg.{named.attr} declares nothing; there are {_list_kinds()}"
                )
                raise self._fault(
                    decorator.lineno, f"{problem}{_ABSENT.get(named.attr, '')}"
                )

    def _refuse_hidden(self, calls: Collection[int]) -> None:
        """BadPlugin for a use of a decorator that is no declaration. `calls`: those that
        are one."""
        for node in self._nodes:
            if _is_ours(node) and id(node) not in calls:
                assert isinstance(node, ast.Attribute)
                raise self._fault(
                    node.lineno,
                    f"zsg.{node.attr} declares something only as a decorator with its"
                    f" name, such as {_SAMPLE}, over a function at the top level of the"
                    " file: not under `if`, in a class or by another name",
                )

    def _read_call(
        self, node: ast.FunctionDef, call: ast.Call, digest: str
    ) -> Declared:
        assert isinstance(call.func, ast.Attribute)
        kind = call.func.attr
        name = self._read_name(kind, call)
        docstring = (ast.get_docstring(node) or "").strip()
        return Declared(
            kind=kind,
            name=name,
            file=self.file,
            line=node.lineno,
            digest=digest,
            about=docstring.partition("\n")[0],
            options=self._read_options(kind, call),
        )

    def _read_name(self, kind: str, call: ast.Call) -> str:
        """The name that a decorator is given, which must be a literal text."""
        values = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        if len(call.args) != 1 or len(values) != 1 or not isinstance(values[0], str):
            raise self._fault(
                call.lineno,
                f'zsg.{kind} takes one name, written out: @zsg.{kind}("name")',
            )
        if not _NAME.fullmatch(values[0]):
            raise self._fault(
                call.lineno,
                f"zsg.{kind}: a name is 1 to 40 lower-case letters, digits and _, and"
                " begins with a letter",
            )
        return values[0]

    def _read_options(self, kind: str, call: ast.Call) -> dict[str, Any]:
        """The arguments behind the name, each a literal of its own type."""
        option_types = OPTIONS[kind]
        options: dict[str, Any] = {}
        for keyword in call.keywords:
            key = keyword.arg or "**"
            if key not in option_types:
                raise self._fault(
                    call.lineno,
                    f"zsg.{kind} has no argument {key}; it has"
                    f" {', '.join(['a name', *option_types])}",
                )
            value = (
                keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            )
            if type(value) is not option_types[key]:
                raise self._fault(
                    call.lineno,
                    f"zsg.{kind}: {key} is to be written out, as {option_types[key].__name__}",
                )
            self._check_option(call.lineno, key, value)
            options[key] = value
        return options

    def _check_option(self, line: int, key: str, value: Any) -> None:
        """BadPlugin for a value of the right type that cannot be."""
        if key == "passes" and not 0 <= value <= 1000:
            raise self._fault(line, "zsg.score: passes is 0 to 1000")
        if key == "of" and value not in METRIC_SOURCES:
            told = " or ".join(METRIC_SOURCES)
            raise self._fault(line, f"zsg.metric: of is {told}")
        if key == "files" and not _FILES.fullmatch(value):
            raise self._fault(
                line, "zsg.reader: files is the end of names, such as *.jsonl"
            )

    def _digest(
        self,
        node: ast.FunctionDef,
        functions: Sequence[ast.FunctionDef],
        siblings: Sequence[str],
    ) -> str:
        """Of all that decides what a function does. `functions`: all that are declared;
        `siblings`: the texts of what is imported from beside it."""
        statements = [
            each
            for each in self._module.body
            if each not in functions and not _is_docstring(each)
        ]
        named = _list_named([node, *statements], functions)
        statements += [each for each in named if each is not node]
        texts = [self._source(node), *map(self._source, statements), *siblings]
        whole = hashlib.sha256()
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            whole.update(f"{len(encoded)}\n".encode() + encoded)
        return whole.hexdigest()[:DIGITS]

    def _source(self, node: ast.stmt) -> str:
        """The lines of a statement, with those of its decorators."""
        first = node.lineno
        if isinstance(node, Definition) and node.decorator_list:
            first = min(first, *(each.lineno for each in node.decorator_list))
        return "\n".join(self._lines[first - 1 : node.end_lineno])


def _list_named(
    statements: Sequence[ast.stmt], functions: Sequence[ast.FunctionDef]
) -> list[ast.FunctionDef]:
    """Which of the declared functions are named in statements, or in those that are, in
    the order of the file: what calls another does what that does."""
    named: list[ast.FunctionDef] = []
    open_statements = list(statements)
    while open_statements:
        nodes = ast.walk(open_statements.pop())
        names = {each.id for each in nodes if isinstance(each, ast.Name)}
        for function in functions:
            if function.name in names and function not in named:
                named.append(function)
                open_statements.append(function)
    return [function for function in functions if function in named]


def _is_ours(node: ast.AST) -> bool:
    """Whether an expression is one of zsg's decorators."""
    return _is_of_module(node) and node.attr in KINDS


def _is_of_module(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Whether an expression is `zsg.NAME`."""
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == MODULE
    )


def _list_kinds() -> str:
    """The decorators that there are."""
    return ", ".join(f"zsg.{kind}" for kind in KINDS)


def _is_docstring(node: ast.stmt) -> bool:
    """Whether a statement is a text and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
