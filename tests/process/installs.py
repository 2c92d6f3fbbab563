"""Install one list in a process of its own, and say what came of it: `python -m tests.process.installs`."""

import importlib
import sys
from pathlib import Path

from runner.sandbox.runtime import InstallError


def main() -> None:
    """Arguments: the runtime, the list, the cache. It then waits until it is told to end."""
    runtime, listing, cache = sys.argv[1:]
    install = importlib.import_module(f"runner.sandbox.{runtime}.install").install
    try:
        answer = f"installed {install(Path(listing), Path(cache))}"
    except InstallError as error:
        answer = f"failed {error}"
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
