"""The command line: starts processes and talks HTTP to a gateway; it imports neither gateway nor runner."""
