"""`quarterhour key`: API keys. It makes them and keeps none."""

from datetime import UTC, datetime

import click

from quarterhour.keys import Grant, Role, digest_of, is_function_glob, line_of, new_key

__all__ = ["key"]

_EXAMPLES = """\b
Examples:
  quarterhour key new --role admin
  quarterhour key new --role invoke --functions 'send-*,report-background'
  quarterhour key new --role read 2>/dev/null
"""


@click.group()
def key() -> None:
    """Make API keys."""


@key.command(epilog=_EXAMPLES)
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="What it may do.",
)
@click.option(
    "--functions", metavar="NAME,...", help="For which functions; may have * and ?.  [default: all]"
)
def new(roles: tuple[str, ...], functions: str | None) -> None:
    """Make an API key, and its line for the file of --api-keys-file.

    The key is shown this once and kept nowhere; the line holds its hash and is no secret. On standard
    output are these two lines alone.
    """
    globs = () if functions is None else tuple(one.strip() for one in functions.split(","))
    for glob in globs:
        if not is_function_glob(glob):
            text = f"--functions has {glob!r}, which is no name of a function, and no pattern such as send-*."
            raise click.ClickException(text)
    made = new_key()
    line = line_of(Grant(digest=digest_of(made.encode()), roles=frozenset(map(Role, roles)), functions=globs))
    click.echo("The key, shown only now; give it to whoever is to have it:", err=True)
    click.echo(made)
    click.echo("The line for the file of --api-keys-file:", err=True)
    click.echo(f"{line}  # made {datetime.now(UTC):%Y-%m-%d}")
