"""Run a program that ends, with all that it started, when whoever started it lets go.

    python -I -S leash.py PROGRAM [ARGUMENT...]

It has a process group of its own. Standard input is the leash: nothing is written there, and its end, of
a starter that has seen enough or was killed, ends the group. Standard output gets the program's exit status
as a line; what the program says, on either stream, goes to standard error. Standard library only.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Run the program that the arguments name; never returns."""
    try:
        process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
    except OSError as error:
        sys.exit(f"{sys.argv[1]} cannot be started: {error.strerror}")
    threading.Thread(target=_say_status, args=(process,), daemon=True).start()
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def _say_status(process: "subprocess.Popen[bytes]") -> None:
    os.write(sys.stdout.fileno(), b"%d\n" % process.wait())


if __name__ == "__main__":
    main()
