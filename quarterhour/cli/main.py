"""The command `quarterhour`: its subcommands, each loaded only when it is asked for.

So `quarterhour runner` never pays for the HTTP client of `quarterhour invoke`.
"""

import importlib
import importlib.metadata

import click

__all__ = ["main"]

COMMANDS = {
    "up": "quarterhour.cli.up:up",
    "new": "quarterhour.cli.new:new",
    "list": "quarterhour.cli.functions:list_functions",
    "invoke": "quarterhour.cli.functions:invoke",
    "status": "quarterhour.cli.functions:status",
    "cancel": "quarterhour.cli.functions:cancel",
    "key": "quarterhour.cli.key:key",
    "gateway": "quarterhour.cli.start:gateway",
    "runner": "quarterhour.cli.start:runner",
}


EPILOG = """\b
Examples:
  quarterhour new hello          write a first function
  quarterhour up                 start everything on this machine
  quarterhour list               which functions there are
  quarterhour invoke hello       run one
  quarterhour status ID          what became of a background invocation

For several machines: `quarterhour gateway` and any number of `quarterhour runner`, all with the same
--broker. Every option of these and of `up` is also a variable, QUARTERHOUR_<OPTION>, and a key of the
table [quarterhour] in quarterhour.toml; a flag wins over the variable, that over the file.
"""


class _Commands(click.Group):
    """A group that imports a subcommand when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a newcomer needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None if there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(importlib.metadata.version("quarterhour"), message="quarterhour %(version)s")
def main() -> None:
    """Serverless functions on your own machines.

    A file in the folder functions/ is a function. One whose name ends in -background answers 202 as
    soon as its invocation is safely queued, and runs later, for up to a quarter of an hour.
    """
