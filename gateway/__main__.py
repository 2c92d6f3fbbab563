"""`python -m gateway`, and `quarterhour gateway`: one gateway process."""

import click

from gateway.wiring import run
from quarterhour.entry import run_process
from quarterhour.logs import configure_logging
from quarterhour.processes import keep_others_out
from quarterhour.settings import GatewaySettings, settings_options

__all__ = ["main"]


@click.command("quarterhour gateway", context_settings={"max_content_width": 100})
@settings_options(GatewaySettings)
def main(settings: GatewaySettings) -> None:
    """Take HTTP requests for functions and hand them to runners, by way of the broker.

    Start as many as you like, behind any load balancer; they keep nothing that others would miss.

    \b
      quarterhour gateway --broker nats://127.0.0.1:4222 --host 0.0.0.0 --port 8888
    """  # noqa: D301 - the backslash is click's mark of a paragraph to be left as it is
    keep_others_out()
    configure_logging(settings.log_format, process="gateway")
    run_process(run(settings))


if __name__ == "__main__":
    main()
