"""Install one list in a process of its own, and say what came of it: `python -m tests.process.installs`."""

import sys
from pathlib import Path

from runner.sandbox.runtime import InstallError
from runner.sandbox.runtimes import RUNTIMES


def main() -> None:
    """Arguments: the runtime, the list, the cache. It then waits until it is told to end."""
    runtime, listing, cache = sys.argv[1:]
    python = Path(sys.executable)
    try:
        answer = f"installed {RUNTIMES[runtime].install(Path(listing), Path(cache), python=python)}"
    except InstallError as error:
        answer = f"failed {error}"
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
