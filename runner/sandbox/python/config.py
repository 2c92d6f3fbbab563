"""What a Python module says in its own source: its literal `config = {...}`, read without running it."""

import ast
import warnings
from typing import Any

from runner.sandbox.runtime import ConfigError, NotValid

__all__ = ["read_config"]


def read_config(source: bytes) -> dict[Any, Any] | None:
    """The dict that the module assigns to `config` last, None if there is no such assignment.

    An assignment of anything else than `{...}` is the module's own affair, and so is one within a
    function, a class or an `if`. Raises `NotValid`, `ConfigError`.
    """
    display = None
    for statement in _parse(source).body:
        match statement:
            case ast.Assign(targets=targets, value=value) if any(map(_is_config, targets)):
                display = value
            case ast.AnnAssign(target=target, value=value) if value is not None and _is_config(target):
                display = value
    return _literal(display) if isinstance(display, ast.Dict) else None


def _parse(source: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python thinks of its style is shown when it runs
            tree = ast.parse(source)
            compile(tree, "<function>", "exec", dont_inherit=True)  # finds what parsing alone passes over
            return tree
    except SyntaxError as error:
        line = f", line {error.lineno}," if error.lineno else ""
        message = f"{line} is not valid Python: {error.msg}."
        raise NotValid(message) from None
    except (ValueError, RecursionError, MemoryError) as error:
        message = f" is not valid Python: {str(error) or 'it is nested too deeply'}."
        raise NotValid(message) from None


def _is_config(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "config"


def _literal(display: ast.Dict) -> dict[Any, Any]:
    config = {}
    for key, value in zip(display.keys, display.values, strict=True):
        try:
            config[ast.literal_eval(key)] = ast.literal_eval(value)  # type: ignore[arg-type]  # None for a **
        except (ValueError, TypeError):
            which = f"the value of {key.value!r}" if isinstance(key, ast.Constant) else "a key"
            message = (
                f", line {value.lineno}: {which} in config must be written as a literal, "
                f"such as 30 or 'text': the module is not run to find it out."
            )
            raise ConfigError(message) from None
    return config
