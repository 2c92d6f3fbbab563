"""What the authors of functions import; standard library only, so that it loads under any interpreter.

>>> from quarterhour import DoNotRetry, RetryAfter
"""

from quarterhour.authors import DoNotRetry, RetryAfter

__all__ = ["DoNotRetry", "RetryAfter"]
