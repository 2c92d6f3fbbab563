"""Netlify's behaviour, held to from outside: `quarterhour up` as a process, HTTP, and nothing else.

`rows.py` says what is held to, `sites.py` starts what is spoken to, `python/` and `javascript/` are the same
functions in both languages.
"""
