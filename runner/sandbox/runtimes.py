"""The runtimes that there are: each folder beside this file with a module `runtime` is one."""

import importlib
from collections.abc import Mapping
from pathlib import Path

from runner.sandbox.runtime import Runtime

__all__ = ["RUNTIMES", "SUFFIXES"]


def _found() -> dict[str, Runtime]:
    folders = sorted(module.parent.name for module in Path(__file__).parent.glob("*/runtime.py"))
    runtimes: list[Runtime] = [
        importlib.import_module(f"runner.sandbox.{folder}.runtime").RUNTIME for folder in folders
    ]
    return {runtime.name: runtime for runtime in runtimes}


RUNTIMES: Mapping[str, Runtime] = _found()

# Of one name in several files, the suffix that comes first here is the function.
SUFFIXES: Mapping[str, str] = {
    suffix: runtime.name for runtime in RUNTIMES.values() for suffix in runtime.suffixes
}
