"""One conformance suite, run against every adapter of the broker port."""
