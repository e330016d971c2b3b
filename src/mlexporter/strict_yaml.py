"""Strict YAML: a document read into frozen structs, with every mistake in it found at once.

The types of the struct's fields say what a file may hold. Understood are structs, ``tuple[X, ...]``, ``dict[str, X]``,
``Literal[...]`` of words, ``bool``, ``X | None``, any other type annotated with a `Scalar` that turns text into it, and
``object`` annotated with a `Tree`, for content whose shape is another program's business.

Values are read by the type that is expected, never by YAML's own guess: where text belongs, an unquoted ``1.10`` is the
text "1.10" and ``no`` is the text "no"; where a boolean belongs, only true and false are one.
"""

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeGuard, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from mlexporter.config_document import MAX_PROBLEMS, ConfigError, ConfigProblem, Document, KeyPath
from mlexporter.scalars import Scalar, boolean, did_you_mean, one_of, shown
from mlexporter.scalars import text as line_of_text

T = TypeVar("T", bound=msgspec.Struct)

MAX_SIZE = 1024 * 1024
"""Longest document in bytes (of a file) or characters (of a text)."""
MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Values read from one document. Each use of an alias counts, so that a small file cannot unfold into a huge one."""

_SECRET_LENGTH = 16
"""Text of so many characters may be a token or a hash that has landed at the wrong key."""

_BROKEN = object()
_NULL_TAG = "tag:yaml.org,2002:null"
_JSON_VALUE = re.compile(r"true|false|-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")
_HINTS = {
    "'\\t'": "a tab where only spaces may stand; indent with spaces",
    "mapping values are not allowed here": 'a ":" where none may stand; check indentation, and quote text with ": "',
    "duplicate anchor": "an anchor of this name stands above already; give it another name",
    "expected <block end>": "this does not continue what stands above; check indentation and brackets",
    "expected a single document": "a second document begins; leave one in the file",
}


class Items(msgspec.Struct, frozen=True):
    """How many items a list may have: an annotation of a tuple type."""

    low: int
    high: int


class Tree(msgspec.Struct, frozen=True):
    """Content of any shape, as JSON has it: an annotation of ``object``.

    Mappings become dicts, lists become tuples, and what is JSON without quotes (``10``, ``true``, ``null``) is that.
    Every other single value is text, read by `leaf`.
    """

    leaf: Scalar[Any]


def read(text: str, shape: type[T], *, name: str, secret: bool = False) -> Document[T]:
    """Read `text` as a `shape`; an empty document is one with every default.

    Of a `secret` document no message shows a value that stands where none may.

    Raises ConfigError where the text is no YAML at all; every other problem is in the document that is returned.
    """
    node = _compose(text, name)
    document: Document[T] = Document(name)
    try:
        document.value = _Walker(document, secret=secret).read_document(node, shape)
    except _StopError:
        document.stopped = True
    return document


class _StopError(Exception):
    """Reading on would be of no use."""


class _Loader(yaml.SafeLoader):
    """PyYAML up to the tree of nodes, without tags and without bottomless nesting. It never builds an object."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "tags such as !!str are not taken", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, name: str) -> yaml.Node | None:
    """Parse `text` to nodes with marks; None for an empty document."""

    def fail(message: str, line: int, column: int) -> NoReturn:
        raise ConfigError(name, (ConfigProblem("", line, column, message),)) from None

    if len(text) > MAX_SIZE:
        fail(f"longer than {MAX_SIZE} characters; no configuration is", 0, 0)
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        message = f"not valid YAML: the character U+{ord(text[error.position]):04X} may not stand in a file"
        fail(message, before.count("\n") + 1, len(before) - before.rfind("\n"))
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        fail(_syntax_message(error, mark), mark.line + 1, mark.column + 1)
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", which PyYAML does not check itself
        mark = loader.get_mark()
        fail("not valid YAML: a number that names no character or version", mark.line + 1, mark.column + 1)
    finally:
        loader.dispose()
    return node


def _syntax_message(error: yaml.MarkedYAMLError, mark: yaml.Mark) -> str:
    problem = error.problem or error.context or "broken"
    for sign, hint in _HINTS.items():
        if sign in problem or sign in (error.context or ""):
            return f"not valid YAML: {hint}"
    if error.context and error.context_mark and error.context_mark.line != mark.line:
        return f"not valid YAML: {problem} ({error.context} that begins on line {error.context_mark.line + 1})"
    return f"not valid YAML: {problem}"


class _Walker:
    """Walks the nodes by the types of the struct. Types are finite, so an alias to its own parent ends too.

    Of a `Tree` the type is no end, and so its depth is bounded.
    """

    def __init__(self, document: Document[Any], *, secret: bool = False) -> None:
        self._document = document
        self._secret = secret
        self._count = 0

    def read_document(self, node: yaml.Node | None, shape: type[T]) -> T | None:
        if node is None:
            start = yaml.Mark("", 0, 0, 0, None, 0)
            node = yaml.MappingNode("tag:yaml.org,2002:map", [], start, start)
        value = self._read(node, shape, ())
        return value if isinstance(value, shape) else None

    def _read(self, node: yaml.Node, shape: Any, path: KeyPath) -> object:
        """Return the value of `node`, or _BROKEN once the reason is noted."""
        self._document.places[path] = _place(node)
        self._tick(path)
        value = self._convert(node, shape, path)
        if value is not _BROKEN:
            self._document.values[path] = value
        return value

    def _tick(self, path: KeyPath) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            self._refuse(
                path, f"more than {MAX_VALUES} values so far, counting each use of an alias; no file needs them"
            )
            raise _StopError

    def _refuse(self, path: KeyPath, message: str, node: yaml.Node | None = None) -> object:
        self._document.refuse(path, message, at=_place(node) if node else None)
        if len(self._document.problems) > MAX_PROBLEMS:
            raise _StopError
        return _BROKEN

    def _convert(self, node: yaml.Node, shape: Any, path: KeyPath) -> object:
        base, notes, optional = _unwrap(shape)
        if tree := next((note for note in notes if isinstance(note, Tree)), None):
            return self._tree(node, shape, tree, path)
        if _is_null(node) and optional:
            return None
        if scalar := _scalar_of(base, notes):
            if isinstance(node, yaml.ScalarNode) and not _is_null(node):
                return self._scalar(node, scalar, path)
        elif _is_struct(base):
            if isinstance(node, yaml.MappingNode) or _is_null(node):
                return self._struct(node, base, path)
        elif get_origin(base) is dict:
            if isinstance(node, yaml.MappingNode):
                return self._dict(node, get_args(base), path)
        elif isinstance(node, yaml.SequenceNode):
            return self._tuple(node, get_args(base)[0], notes, path)
        subject = "is" if path else "the document is"
        kind = "a single value" if self._secret and isinstance(node, yaml.ScalarNode) else _kind(node)
        return self._refuse(path, f"{subject} {kind}; use {_accepts(base, notes)}")

    def _struct(self, node: yaml.Node, shape: type[msgspec.Struct], path: KeyPath) -> object:
        self._document.mappings.add(path)
        fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
        given: dict[str, object] = {}
        found: set[str] = set()
        whole = True
        for key_node, value in self._pairs(node, path):
            key = key_node.value if key_node else ""
            if key_node is None:
                whole = False
            elif (field := fields.get(key)) is None:
                whole = False
                near = did_you_mean(key, tuple(fields)) or f"known here are {', '.join(fields)}"
                self._refuse((*path, key), f"unknown key; {near}", key_node)
            else:
                found.add(key)
                if _is_null(value) and get_origin(_unwrap(field.type)[0]) in (tuple, dict):
                    continue  # "models:" with nothing below it: all of it is commented out
                given[field.name] = self._read(value, field.type, (*path, key))
                whole &= given[field.name] is not _BROKEN
        for name, field in fields.items():
            if field.required and name not in found:
                whole = False
                base, notes, _ = _unwrap(field.type)
                self._refuse((*path, name), f"missing, and required; use {_accepts(base, notes)}", node)
        return shape(**given) if whole else _BROKEN

    def _dict(self, node: yaml.Node, shapes: tuple[Any, ...], path: KeyPath) -> object:
        key_scalar = _scalar_of(*_unwrap(shapes[0])[:2])
        given: dict[str, object] = {}
        whole = True
        for key_node, value in self._pairs(node, path):
            key = key_node.value if key_node else ""
            if key_node is None or (key_scalar and self._scalar(key_node, key_scalar, (*path, key)) is _BROKEN):
                whole = False
            else:
                given[key] = self._read(value, shapes[1], (*path, key))
                whole &= given[key] is not _BROKEN
        return given if whole else _BROKEN

    def _pairs(self, node: yaml.Node, path: KeyPath) -> Iterator[tuple[yaml.ScalarNode | None, yaml.Node]]:
        """Yield each key's node and its value's; None for a key that was refused."""
        first: dict[str, int] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            self._tick(path)
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(path, f"a key here is {_kind(key)}; use plain text", key)
            elif key.value == "<<" and key.style is None:
                self._refuse((*path, "<<"), "merge keys are not taken; write the keys out", key)
            elif key.value in first:
                self._refuse((*path, key.value), f"given twice, first on line {first[key.value]}; keep one", key)
            else:
                first[key.value] = _place(key)[0]
                yield key, value
                continue
            yield None, value

    def _tuple(self, node: yaml.SequenceNode, shape: Any, notes: tuple[Any, ...], path: KeyPath) -> object:
        values = [self._read(item, shape, (*path, index)) for index, item in enumerate(node.value)]
        for note in notes:
            if isinstance(note, Items) and not note.low <= len(values) <= note.high:
                return self._refuse(path, f"has {len(values)} items; use {note.low} to {note.high}")
        return _BROKEN if any(value is _BROKEN for value in values) else tuple(values)

    def _tree(self, node: yaml.Node, shape: Any, tree: Tree, path: KeyPath) -> object:
        if len(path) > MAX_DEPTH:
            return self._refuse(path, f"nested more than {MAX_DEPTH} deep")
        if isinstance(node, yaml.MappingNode):
            return self._dict(node, (Annotated[str, line_of_text(1, 256)], shape), path)
        if isinstance(node, yaml.SequenceNode):
            return self._tuple(node, shape, (), path)
        assert isinstance(node, yaml.ScalarNode)
        if _is_null(node):
            return None
        if node.style is None and _JSON_VALUE.fullmatch(node.value):
            return msgspec.json.decode(node.value)
        return self._scalar(node, tree.leaf, path)

    def _scalar(self, node: yaml.ScalarNode, scalar: Scalar[Any], path: KeyPath) -> object:
        if node.style is not None and not scalar.quoted:
            said = f"{shown(node.value)} is quoted text; use {scalar.accepts}, unquoted"
        else:
            try:
                return scalar.parse(node.value)
            except ValueError as error:
                said = f"{error}" if scalar.spoken else f"{error}; use {scalar.accepts}"
        if self._secret and len(node.value) >= _SECRET_LENGTH:
            said = said.replace(shown(node.value), "what stands here")
        return self._refuse(path, said, node)


def _scalar_of(base: Any, notes: tuple[Any, ...]) -> Scalar[Any] | None:
    """Return how a single value of this type is read; None for types that are not single values."""
    if get_origin(base) is Literal:
        return one_of(*get_args(base))
    if base is bool:
        return boolean()
    return next((note for note in notes if isinstance(note, Scalar)), None)


def _accepts(base: Any, notes: tuple[Any, ...]) -> str:
    if scalar := _scalar_of(base, notes):
        return scalar.accepts
    if get_origin(base) is tuple:
        return 'a list, each item on a line of its own after "- " or all of them in [brackets]'
    return 'a mapping, "key: value" lines'


def _unwrap(shape: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Split a field's type into the bare type, its annotations, and whether None is allowed."""
    optional = get_origin(shape) in (Union, UnionType)
    if optional:
        (shape,) = (member for member in get_args(shape) if member is not NoneType)
    if get_origin(shape) is Annotated:
        base, *notes = get_args(shape)
        return base, tuple(notes), optional
    return shape, (), optional


def _is_struct(base: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(base, type) and issubclass(base, msgspec.Struct)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.tag == _NULL_TAG


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "empty" if _is_null(node) else f"the single value {shown(node.value)}"


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
