"""`python -m runner`, and `quarterhour runner`: one runner process."""

import click

from quarterhour.entry import run_process
from quarterhour.logs import configure_logging
from quarterhour.processes import keep_others_out, raise_descriptors
from quarterhour.settings import RunnerSettings, settings_options
from runner.wiring import run

__all__ = ["main"]

DESCRIPTORS_PER_SLOT = 8  # a worker has three, and three more while it is started
DESCRIPTORS_KEPT = 1024  # for everything else, the workers that are spare or being ended among them


@click.command("quarterhour runner", context_settings={"max_content_width": 100})
@settings_options(RunnerSettings)
def main(settings: RunnerSettings) -> None:
    r"""Run functions: take calls and background work from the broker until SIGTERM, then drain.

    Start as many as you like, on as many machines; they share the work.

    \b
      quarterhour runner --broker nats://127.0.0.1:4222 --functions functions
    """
    keep_others_out()
    raise_descriptors(DESCRIPTORS_KEPT + DESCRIPTORS_PER_SLOT * settings.slots)
    configure_logging(settings.log_format, process="runner")
    run_process(run(settings))


if __name__ == "__main__":
    main()
