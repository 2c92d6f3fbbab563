"""The command line as its users have it: a process that ends."""

import asyncio
import sys
from pathlib import Path

__all__ = ["run"]

END_S = 60.0


async def run(
    *arguments: str, url: str | None = None, folder: Path | None = None, stdin: str = ""
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `quarterhour ...`. `url`: the gateway's."""
    at = () if url is None else ("--url", url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "quarterhour", *arguments, *at),
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(END_S):
            output, errors = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
    return await process.wait(), output.decode(), errors.decode()
