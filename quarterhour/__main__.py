"""`python -m quarterhour` is the command `quarterhour`."""

from quarterhour.cli.main import main

if __name__ == "__main__":
    main(prog_name="quarterhour")
