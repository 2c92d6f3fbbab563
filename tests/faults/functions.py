"""The functions that run while faults are made, and what each is expected to come to.

Every handler writes down when it begins, every 50 ms that it still runs, and when it ends: one line
each, in one write, with the boot clock. So runs that overlapped are seen even where one was killed.
"""

from dataclasses import dataclass

__all__ = ["FUNCTIONS", "LEDGER", "Function", "sources"]

LEDGER = "ledger"  # the file, beside the folder of functions

_HEAD = """
import os, pathlib, time

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
LEDGER = pathlib.Path(__file__).parent.parent / "ledger"
BEAT_S = 0.05

def note(what, context):
    words = (what, context.function_name, context.awsRequestId, context.attempt, os.getppid(), os.getpid(),
             time.clock_gettime(CLOCK))
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, words)) + "\\n").encode())
    os.close(file)

def work(context, seconds):
    ends_at = time.clock_gettime(CLOCK) + seconds
    while (left := ends_at - time.clock_gettime(CLOCK)) > 0:
        time.sleep(min(BEAT_S, left))
        note("beat", context)
"""

_TAIL = """
def handler(event, context):
    note("begin", context)
    work(context, {seconds})
    {act}
    note("end", context)
    return {{"statusCode": 200, "body": context.awsRequestId}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function. `bad_attempts`: the numbers of the attempts that do `act`; all: 99.

    `seconds`: how long it runs, as an expression. `share`: of the load. `delay_s_max`: accepted for later.
    """

    name: str
    seconds: str = "0.005"
    act: str = "pass"
    outcome: str = "succeeded"
    bad_attempts: int = 0
    retries: int = 4
    schedule: str | None = None
    share: int = 0
    delay_s_max: float = 0.0

    @property
    def background(self) -> bool:
        return self.name.endswith("-background")

    @property
    def has_queue(self) -> bool:
        return self.background or self.schedule is not None

    @property
    def source(self) -> str:
        config: dict[str, object] = {"timeout": 30}
        if self.has_queue:
            config |= {"retries": self.retries, "retry_delay": [0.3, 0.6]}
        if self.schedule is not None:
            config["schedule"] = self.schedule
        act = f"if context.attempt <= {self.bad_attempts}: {self.act}" if self.bad_attempts else "pass"
        return f"config = {config!r}\n{_HEAD}{_TAIL.format(seconds=self.seconds, act=act)}"


_RAISE, _CRASH = 'raise ValueError("as asked")', "os._exit(3)"
_LONG = "1.0 + 2.0 * (hash(context.awsRequestId) % 100) / 100"

FUNCTIONS = {
    function.name: function
    for function in (
        Function(name="quick-background", share=40),
        Function(name="slow-background", seconds=_LONG, share=6),
        Function(name="long-background", seconds=f"4 * ({_LONG}) - 2", share=2),
        Function(
            name="flaky-background", act=_RAISE, outcome="failed", bad_attempts=1, seconds="0.05", share=10
        ),
        Function(
            name="hopeless-background", act=_RAISE, outcome="failed", bad_attempts=99, retries=2, share=5
        ),
        Function(
            name="crashing-background", act=_CRASH, outcome="crashed", bad_attempts=1, seconds="0.1", share=5
        ),
        Function(name="fatal-background", act=_CRASH, outcome="crashed", bad_attempts=99, retries=1, share=3),
        Function(name="later-background", seconds="0.2", share=10, delay_s_max=4.0),
        Function(name="unsent-background"),  # only half-sent requests name it: it must never run
        Function(name="tick", seconds="0.1", schedule="*/2 * * * * *", retries=0),
        Function(name="echo", share=8),
        Function(name="nap", seconds="0.3", share=4),
    )
}


def sources() -> dict[str, str]:
    """The source of each function, by its name."""
    return {name: function.source for name, function in FUNCTIONS.items()}
