"""What `make faults` runs: the faults of a seed, with a line that says how far it is, and the books.

    python -m tests.faults [--seconds 120] [--seed N] [--cluster]

Exit status 1: the books do not balance; the logs and the ledger are kept then, and it says where.
"""

import argparse
import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from quarterhour.processes import background
from tests.faults.books import Books, figures, wrong
from tests.faults.run import Options, Progress, run

SENTENCES_MAX = 10
DISK_MIB = 256


def main() -> int:
    arguments = _arguments()
    options = Options(
        seed=arguments.seed,
        seconds=arguments.seconds,
        clustered=arguments.cluster,
        lease_s=arguments.lease,
        every_s=arguments.every,
        per_second=arguments.rate,
    )
    servers = "three servers" if options.clustered else "one server"
    print(f"seed {options.seed}: {options.seconds:g} s of faults, NATS of {servers}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="quarterhour-faults-"))
    with _small_disk(folder, wanted=not options.clustered) as disk:
        books = asyncio.run(_run(options, folder, disk))
    found = wrong(books)
    _show(books, found)
    if found or arguments.keep:
        (folder / "books.json").write_bytes(orjson.dumps(books))
        print(f"The logs, the ledger and the books are in {folder}.")
    else:
        shutil.rmtree(folder)
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make faults", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long faults are made")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--cluster", action="store_true", help="three NATS servers, three replicas")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between faults, on average")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second")
    parser.add_argument("--keep", action="store_true", help="keep the logs even if all is well")
    return parser.parse_args()


@contextmanager
def _small_disk(folder: Path, *, wanted: bool) -> Iterator[Path | None]:
    """A disk that can be filled without harm, where this user may make one."""
    path = folder / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)]
    if not wanted or subprocess.run(mount, capture_output=True, check=False).returncode:
        print("No disk is filled: that takes one NATS server and the right to mount a small disk.")
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


async def _run(options: Options, folder: Path, disk: Path | None) -> Books:
    progress = Progress()
    async with background(_report(progress)):
        return await run(options, folder, progress, disk=disk)


async def _report(progress: Progress) -> None:
    live = sys.stdout.isatty()
    began = time.monotonic()
    while True:
        await asyncio.sleep(0.5 if live else 5.0)
        accepted = len(progress.load.accepted) if progress.load else 0
        answers = sum(progress.load.answers.values()) if progress.load else 0
        line = (
            f"{time.monotonic() - began:5.0f} s  {progress.what}: {len(progress.faults)} faults, "
            f"{answers} answers, {accepted} accepted"
        )
        print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", flush=True)


def _show(books: Books, found: dict[str, list[str]]) -> None:
    table = figures(books)
    print()
    for name, value in table.items():
        for row, text in _rows(name, value):
            print(f"  {row:36} {text}")
    for check, sentences in found.items():
        print(f"\n{check}: {len(sentences)}")
        for sentence in sentences[:SENTENCES_MAX]:
            print(f"  {sentence}")
    print("\nThe books balance." if not found else "\nThe books do not balance.")
    print(json.dumps(table | {"wrong": {name: len(sentences) for name, sentences in found.items()}}))


def _rows(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    yield name, ""
    for key, one in value.items():
        yield f"  {key}", one


if __name__ == "__main__":
    sys.exit(main())
