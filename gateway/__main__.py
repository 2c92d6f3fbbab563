"""`python -m gateway`: one gateway process. Everything that ends it is one sentence and an exit status."""

import click
import uvloop

from gateway.wiring import run
from quarterhour.errors import QuarterhourError
from quarterhour.logs import configure_logging
from quarterhour.settings import GatewaySettings, settings_options

__all__ = ["main"]


@click.command(name="gateway")
@settings_options(GatewaySettings)
def main(settings: GatewaySettings) -> None:
    """Run a gateway: it takes HTTP requests and hands them to runners by way of the broker."""
    configure_logging(settings.log_format, process="gateway")
    try:
        uvloop.run(run(settings))
    except QuarterhourError as error:
        raise click.ClickException(str(error)) from None
    except BaseExceptionGroup as group:
        known, unknown = group.split(QuarterhourError)
        if known is None or unknown is not None:
            raise
        raise click.ClickException(str(_first(known))) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


if __name__ == "__main__":
    main()
