"""The guard: what keeps workers, of whatever language. It runs under the interpreter of the functions."""
