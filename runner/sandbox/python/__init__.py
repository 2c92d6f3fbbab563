"""The Python runtime. `zygote.py` and `worker.py` run under the function's interpreter: standard library only."""
