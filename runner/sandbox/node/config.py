"""What a JavaScript or TypeScript module says in its own source, read off its syntax tree without running it.

`export const config = {...}` and CommonJS's `exports.config = {...}`, as a literal; and the cron
expression of a handler that is wrapped in `schedule("@hourly", handler)`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

from runner.sandbox.node.literal import NoLiteral, bare, key_of, text_of, value_of
from runner.sandbox.runtime import ConfigError

__all__ = ["NETLIFY_KEYS", "Reading", "read_config"]

# What Netlify reads in `config`, or did, and has no meaning here.
NETLIFY_KEYS = frozenset(
    {
        "cache",
        "displayName",
        "externalNodeModules",
        "generator",
        "ignoredNodeModules",
        "includedFiles",
        "includedFilesBasePath",
        "name",
        "nodeBundler",
        "nodeModuleFormat",
        "nodeVersion",
        "onError",
        "preferStatic",
        "rateLimit",
        "region",
        "type",
    }
)
_NAMES = frozenset({"identifier", "shorthand_property_identifier"})
_HUMP = re.compile(r"(?<=[a-z0-9])[A-Z]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# One for JavaScript as well: of what it reads differently, nothing can stand in a literal.
_LANGUAGE = Language(tree_sitter_typescript.language_typescript())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the source says, with a manifest's keys, and whether it looks as if it could not be parsed."""

    config: Mapping[str, Any] | None
    is_doubtful: bool


def read_config(source: bytes) -> Reading:
    """What the module says of itself. Raises `ConfigError`: only running would tell."""
    root = Parser(_LANGUAGE).parse(source.removeprefix(_BYTE_ORDER_MARK)).root_node
    try:
        return Reading(config=_config(root), is_doubtful=root.has_error)
    except RecursionError:
        message = ": config is nested too deeply."
        raise ConfigError(message) from None


def _config(root: Node) -> Mapping[str, Any] | None:
    variables = dict(_variables(root))
    exports = dict(_exports(root, variables))
    display = exports.get("config")
    config = _values(display) if display is not None and display.type == "object" else None
    schedule = _schedule(exports.get("handler") or exports.get("default"), variables)
    return config if schedule is None else {"schedule": schedule, **(config or {})}


def _variables(root: Node) -> Iterator[tuple[str, Node]]:
    """The variables that the module declares at its top, exported or not."""
    for statement in root.named_children:
        yield from _declared(statement.child_by_field_name("declaration") or statement)


def _declared(statement: Node) -> Iterator[tuple[str, Node]]:
    if statement.type not in ("lexical_declaration", "variable_declaration"):
        return
    for declarator in statement.named_children:
        name, value = declarator.child_by_field_name("name"), declarator.child_by_field_name("value")
        if name is not None and value is not None:
            yield text_of(name), bare(value)


def _exports(root: Node, variables: Mapping[str, Node]) -> Iterator[tuple[str, Node]]:
    """What the module exports, by name, as far as the source says; the last one of a name counts."""
    for statement in root.named_children:
        if statement.type == "export_statement":
            named = _exported(statement)
        elif statement.type == "expression_statement" and statement.named_children:
            named = _assigned(statement.named_children[0])
        else:
            continue
        for name, value in named:
            followed = variables.get(text_of(value)) if value.type in _NAMES else value
            if followed is not None:
                yield name, followed


def _exported(statement: Node) -> Iterator[tuple[str, Node]]:
    if statement.child_by_field_name("source") is not None:
        return  # from another module
    value = statement.child_by_field_name("value")
    if value is not None:
        yield "default", bare(value)
    for clause in statement.named_children:
        if clause.type == "export_clause":
            for specifier in clause.named_children:
                name = specifier.child_by_field_name("name")
                if name is not None:
                    yield text_of(specifier.child_by_field_name("alias") or name), name
        else:
            yield from _declared(clause)


def _assigned(expression: Node) -> Iterator[tuple[str, Node]]:
    """What `exports.name = ...` and `module.exports = {...}` export."""
    left, right = expression.child_by_field_name("left"), expression.child_by_field_name("right")
    if expression.type != "assignment_expression" or left is None or right is None:
        return
    yield from _assigned(right)  # exports.a = exports.b = ...
    value = bare(right)
    while value.type == "assignment_expression":
        value = bare(value.child_by_field_name("right") or value.named_children[-1])
    target = text_of(left).removeprefix("module.")
    if target == "exports" and value.type == "object":
        yield from _members(value)
    elif target.startswith("exports."):
        yield target.removeprefix("exports."), value


def _members(display: Node) -> Iterator[tuple[str, Node]]:
    for child in display.named_children:
        key, value = child.child_by_field_name("key"), child.child_by_field_name("value")
        if child.type == "shorthand_property_identifier":
            yield text_of(child), child
        elif child.type == "pair" and key is not None and value is not None:
            yield text_of(key).strip("'\""), bare(value)


def _values(display: Node) -> dict[str, Any]:
    """The values of `config`, with a manifest's keys; what is null or undefined is not said."""
    values = {}
    for child in display.named_children:
        if child.type == "comment":
            continue
        key, value = child.child_by_field_name("key"), child.child_by_field_name("value")
        try:
            name = key_of(child if key is None else key)
        except NoLiteral:
            raise _no_literal(child, "a key") from None
        if name in NETLIFY_KEYS:
            continue
        try:
            said = value_of(child if value is None else value)
        except NoLiteral:
            raise _no_literal(child, f"the value of {name!r}") from None
        if said is not None:
            values[_HUMP.sub(lambda hump: f"_{hump[0].lower()}", name)] = said
    return values


def _no_literal(node: Node, what: str) -> ConfigError:
    return ConfigError(
        f", line {node.start_point.row + 1}: {what} in config must be written as a literal, "
        f"such as 30 or 'text': the module is not run to find it out."
    )


def _schedule(handler: Node | None, variables: Mapping[str, Node]) -> Any:
    """The cron expression of `schedule("@hourly", handler)`, None if the handler is none such."""
    if handler is None or handler.type != "call_expression":
        return None
    function, arguments = handler.child_by_field_name("function"), handler.child_by_field_name("arguments")
    if function is None or arguments is None or text_of(function).rpartition(".")[2] != "schedule":
        return None
    first = next((child for child in arguments.named_children if child.type != "comment"), None)
    if first is None:
        return None
    try:
        return value_of(variables.get(text_of(first), first))
    except NoLiteral:
        message = (
            f", line {first.start_point.row + 1}: the first argument of schedule() must be written as a "
            f"literal, such as '@hourly': the module is not run to find it out."
        )
        raise ConfigError(message) from None
