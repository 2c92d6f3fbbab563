"""`quarterhour gateway` and `quarterhour runner`: the packages of those names, run in this process.

Each has a click command `main` in its `__main__`, which is found by name when it is used: the command
line imports neither package.
"""

import importlib

import click

from quarterhour.processes import keep_others_out

__all__ = ["gateway", "runner"]

# Everything behind the name goes to the package, which knows its options and its --help.
_PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command(context_settings=_PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def gateway(arguments: tuple[str, ...]) -> None:
    """Start a gateway: HTTP in, HTTP out."""
    _run("gateway", arguments)


@click.command(context_settings=_PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def runner(arguments: tuple[str, ...]) -> None:
    """Start a runner, which runs the functions."""
    _run("runner", arguments)


def _run(package: str, arguments: tuple[str, ...]) -> None:
    keep_others_out()  # before anything else: all that is imported now takes a while
    command: click.Command = importlib.import_module(f"{package}.__main__").main
    command.main(args=list(arguments), prog_name=f"quarterhour {package}")
