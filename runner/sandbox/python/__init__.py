"""The Python runtime. What is in here runs under the function's interpreter: standard library only."""
