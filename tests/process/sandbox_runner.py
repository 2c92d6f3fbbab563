"""A runner of nothing but a sandbox, to be killed or stopped: `python sandbox_runner.py FILE LEASE_S`.

It makes one attempt of the handler in FILE, with a lease that nobody renews (0: none), and prints
what its function prints. Its own end is up to the test.
"""

import asyncio
import signal
import sys
from pathlib import Path

from quarterhour.clock import SystemClock
from runner.sandbox.job import Code
from runner.sandbox.pool import Sandbox
from tests.process.sandboxes import Bench, settings


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(path: Path, source: bytes, lease_s: float) -> None:
    async with Sandbox(settings(), clock=SystemClock(), on_line=lambda line: say(line.text)) as sandbox:
        bench = Bench(sandbox=sandbox, folder=path.parent, lines=[])
        say(f"guard {bench.guard_pid}")
        code = Code(function=path.stem, path=path, folder=path.parent, source=source)
        await bench.run(code, lease_s=lease_s or None, limit_s=1000)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    function = Path(sys.argv[1])
    asyncio.run(main(function, function.read_bytes(), float(sys.argv[2])))
