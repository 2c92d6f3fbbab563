"""Pure parts: no server, no processes, milliseconds."""
