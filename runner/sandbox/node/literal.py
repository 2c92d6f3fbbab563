"""Literals of JavaScript: the values that stand in a source, read off its syntax tree. Nothing is run."""

import re
from collections.abc import Callable
from typing import Any

from tree_sitter import Node

__all__ = ["NoLiteral", "bare", "key_of", "text_of", "value_of"]


class NoLiteral(Exception):  # noqa: N818 - a state of affairs
    """What stands there is no literal: only running it would tell its value."""


# What TypeScript writes around a value, which is the first of the children that are no syntax.
_WRAPPERS = frozenset(
    {"as_expression", "non_null_expression", "parenthesized_expression", "satisfies_expression"}
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]+)\}|(\r\n|[\s\S]))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_LINE_ENDS = frozenset({"\n", "\r\n", "\r", "\u2028", "\u2029"})  # after a backslash they stand for nothing


def text_of(node: Node) -> str:
    """The source text of a node."""
    return (node.text or b"").decode("utf-8", "replace")


def bare(node: Node) -> Node:
    """The expression without what TypeScript writes around it: `as const`, `satisfies Config`, brackets."""
    while True:
        inner = [child for child in node.named_children if child.type != "comment"]
        if node.type in _WRAPPERS and inner:
            node = inner[0]
        elif node.type == "type_assertion" and inner:
            node = inner[-1]
        else:
            return node


def key_of(node: Node) -> str:
    """The name that a key of an object stands for. Raises `NoLiteral`."""
    if node.type in ("property_identifier", "shorthand_property_identifier"):
        return text_of(node)
    if node.type in ("string", "number"):
        return str(value_of(node))
    raise NoLiteral


def value_of(node: Node) -> Any:
    """The value of a literal as Python has it: whole numbers are ints, null and undefined None.

    Raises `NoLiteral`, RecursionError.
    """
    node = bare(node)
    read = _READ.get(node.type)
    if read is None:
        raise NoLiteral
    return read(node)


def _text(node: Node) -> str:
    if any(child.type == "template_substitution" for child in node.named_children):
        raise NoLiteral
    return _ESCAPE.sub(_unescaped, text_of(node)[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    *digits, other = match.groups()
    code = next(filter(None, digits), None)
    if code is not None:
        return chr(min(int(code, 16), 0x10FFFF))
    return "" if other in _LINE_ENDS else _ESCAPED.get(other, other)


def _number(node: Node) -> int | float:
    text = text_of(node).replace("_", "").lower()
    try:
        value = int(text, 0) if text.startswith(("0x", "0o", "0b")) else float(text)
    except ValueError:  # 10n, which is no number of JSON's
        raise NoLiteral from None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _signed(node: Node) -> int | float:
    operator, argument = node.child_by_field_name("operator"), node.child_by_field_name("argument")
    if operator is None or argument is None or text_of(operator) not in "+-":
        raise NoLiteral
    value = value_of(argument)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoLiteral
    return -value if text_of(operator) == "-" else value


def _array(node: Node) -> list[Any]:
    return [value_of(child) for child in node.named_children if child.type != "comment"]


def _object(node: Node) -> dict[str, Any]:
    values = {}
    for child in node.named_children:
        if child.type == "comment":
            continue
        key, value = child.child_by_field_name("key"), child.child_by_field_name("value")
        if child.type != "pair" or key is None or value is None:
            raise NoLiteral
        values[key_of(key)] = value_of(value)
    return values


_READ: dict[str, Callable[[Node], Any]] = {
    "array": _array,
    "false": lambda _: False,
    "null": lambda _: None,
    "number": _number,
    "object": _object,
    "string": _text,
    "template_string": _text,
    "true": lambda _: True,
    "unary_expression": _signed,
    "undefined": lambda _: None,
}
