"""The command line: starts processes and talks HTTP to gateways; imports neither gateway nor runner."""
