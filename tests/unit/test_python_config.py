"""`config = {...}` is read from the source, and the module is never run."""

import pytest

from runner.sandbox.python.config import read_config
from runner.sandbox.runtime import ConfigError, NotValid


@pytest.mark.parametrize(
    ("source", "config"),
    [
        ("", None),
        ("config = {}", {}),
        (
            "config = {'retry_delay': [1, 2.5], 'background': True}",
            {"retry_delay": [1, 2.5], "background": True},
        ),
        ("config: dict[str, object] = {'timeout': 5}", {"timeout": 5}),
        ("config = settings = {'timeout': 5}", {"timeout": 5}),
        ("config = {'timeout': 5}\nconfig = {'timeout': 6}", {"timeout": 6}),
        ("config = {'timeout': -5}", {"timeout": -5}),
        ("config = load()", None),
        ("config = {'timeout': 5}\nconfig = load()", None),
        ("config: dict", None),
        ("config.timeout = 5", None),
        ("if True:\n    config = {'timeout': 5}", None),
        ("def handler(event, context):\n    config = {'timeout': 5}", None),
        ("class A:\n    config = {'timeout': 5}", None),
        ("other = {'timeout': 5}", None),
        ("# coding: latin-1\nconfig = {'schedule': '\xe4'}", {"schedule": "ä"}),
        ("\ufeffconfig = {'timeout': 5}", {"timeout": 5}),
    ],
)
def test_what_counts_as_config(source: str, config: dict[str, object] | None) -> None:
    encoding = "latin-1" if source.startswith("# coding") else "utf-8"
    assert read_config(source.encode(encoding)) == config


def test_the_module_is_never_run() -> None:
    assert read_config(b"raise SystemExit(1)\nconfig = {'timeout': 5}") == {"timeout": 5}


def test_a_doubtful_style_is_no_error() -> None:
    assert read_config(b"x = '\\d'\nx is 5\nassert (x, 'always true')") is None


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (b"config = {'timeout': LIMIT}", ", line 1: the value of 'timeout' in config"),
        (b"config = {KEY: 5}", ", line 1: a key in config"),
        (b"config = {**other}", ", line 1: a key in config"),
        (b"config = {[]: 5}", ", line 1: a key in config"),
        (b"config = {'path': f'/{x}'}", ", line 1: the value of 'path' in config"),
        (b"config = {'timeout': " + b"-" * 90 + b"1}", ", line 1: the value of 'timeout' in config"),
        (b"config = {\n  'timeout': 5 * 60}", ", line 2: the value of 'timeout' in config must be written"),
    ],
)
def test_a_config_that_is_no_literal(source: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(source)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (b"x = 1\ndef handler(:\n  pass", ", line 2, is not valid Python: invalid syntax."),
        (b"x = (1,\n", ", line 1, is not valid Python: '(' was never closed."),
        (b"return 5", ", line 1, is not valid Python: 'return' outside function."),
        (b"x = 1\n\nawait x", ", line 3, is not valid Python: 'await' outside function."),
        (b"x = '\xff'", "is not valid Python: (unicode error)"),
        (b"x = 1\0", "is not valid Python"),
        (b"# coding: nonsense\n", "is not valid Python: "),
        (b"(" * 5000, "is not valid Python: "),
        (b"-" * 200_000 + b"1", "is not valid Python: "),
        (b"x = " + b"1" * 5000, "is not valid Python: "),
        (b"\x7fELF\x02\x01\x01", "is not valid Python: "),
    ],
    ids=range(11),
)
def test_what_is_not_python(source: bytes, sentence: str) -> None:
    with pytest.raises(NotValid) as caught:
        read_config(source)
    assert sentence in str(caught.value)
