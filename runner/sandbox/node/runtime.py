"""JavaScript and TypeScript: functions run by Node.js, each worker a process of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.sandbox.node.check import check_syntax
from runner.sandbox.node.config import read_config
from runner.sandbox.node.find import find_node
from runner.sandbox.runtime import Launch, Runtime

__all__ = ["RUNTIME"]

_WORKER = Path(__file__).with_name("worker.mjs")
# What Node thinks of its own features is news to nobody here; what it thinks of the function's code is shown.
_QUIET = ("--disable-warning=ExperimentalWarning", "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON")


class NodeRuntime:
    """Functions in JavaScript and TypeScript."""

    name = "node"
    suffixes: tuple[str, ...] = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
    listing = "package.json"

    def read_config(self, source: bytes) -> Mapping[Any, Any] | None:
        """What the module says in its `config`. Raises `NotValid`, `ConfigError`."""
        reading = read_config(source)
        if reading.is_doubtful:
            check_syntax(source)
        return reading.config

    def install(self, listing: Path, cache: Path) -> Path | None:  # noqa: ARG002 - the port's
        """Nothing: `node_modules` is found where it is."""
        return None

    def launch(self, *, installed: Path | None, memory_mib: int) -> Launch:  # noqa: ARG002 - the port's
        """Node with the worker. Raises `Missing`."""
        memory = f"--max-old-space-size={memory_mib}"
        return Launch(command=(str(find_node()), memory, *_QUIET, str(_WORKER)))


RUNTIME: Runtime = NodeRuntime()
