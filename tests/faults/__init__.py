"""Real processes, real faults, and books that have to balance at the end. See `docs/reliability.md`."""
