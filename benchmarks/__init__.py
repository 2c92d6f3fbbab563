"""Benchmarks: what the system does on this machine, beside what the machine can do at all.

    python -m benchmarks [--quick] [--only NAME,NAME] [--server hypercorn|granian]

Absolute figures depend on the machine and on what else it does, so that every promise is a ratio of
two things measured in turns in one run. Everything is on the loopback and ends with this process.
"""
