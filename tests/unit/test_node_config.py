"""`config` of JavaScript and TypeScript is read from the source, and the module is never run."""

from typing import Any

import pytest

from runner.sandbox.node.config import NETLIFY_KEYS
from runner.sandbox.node.config import read_config as read
from runner.sandbox.node.runtime import RUNTIME
from runner.sandbox.runtime import ConfigError, NotValid
from tests.node import node


def read_config(source: str) -> Any:
    return read(source.encode()).config


@pytest.mark.parametrize(
    "source",
    [
        "export const config = { path: '/a' }",
        "export let config = { path: '/a' };",
        "export var config = { path: '/a' };",
        "export const config: Config = { path: '/a' }",
        "export const config = { path: '/a' } satisfies Config;",
        "export const config = { path: '/a' } as const satisfies Config;",
        "export const config = <Config>{ path: '/a' };",
        "export const config = ({ path: '/a' });",
        "export const other = 5, config = { path: '/a' };",
        "const config = { path: '/a' }; export { config };",
        "const settings: Config = { path: '/a' };\nexport { settings as config, handler };",
        "exports.config = { path: '/a' };",
        "module.exports.config = { path: '/a' };",
        "module.exports = { handler, config: { path: '/a' } };",
        "const config = { path: '/a' }; module.exports = { handler, config };",
        "exports.config = module.exports.settings = { path: '/a' };",
        "exports.config = { path: '/b' }; exports.config = { path: '/a' };",
        "export default async (req: Request, context: Context) => new Response('');\n\n"
        "export const config: Config = {\n  // where it is\n  'path': `/a`, /* and no more */\n};\n",
        "\ufeffexport const config = { path: '/a' }",
        "#!/usr/bin/env node\nexports.config = { path: '/a' }",
        "throw new Error('it was run'); export const config = { path: '/a' }",
        "export const config = { path: '\\x2fa' }",
        "export const config = { path: '\\u002f\\u{61}' }",
        "export const config = { path: '/\\\na' }",
    ],
)
def test_where_config_may_stand(source: str) -> None:
    assert read_config(source) == {"path": "/a"}


@pytest.mark.parametrize(
    "source",
    [
        "",
        "const config = { path: '/a' }",
        "export const config = load()",
        "export const config = base",
        "export const settings = { path: '/a' }",
        "export { config } from './config.js'",
        "import { config } from './config.js'; export { config }",
        "export function config() {}",
        "function f() { exports.config = { path: '/a' } }",
        "if (true) { exports.config = { path: '/a' } }",
        "other.exports.config = { path: '/a' }",
        "exports.config.path = '/a'",
        "module.exports = load()",
        "// export const config = { path: '/a' }",
        "const text = `export const config = { path: '/a' }`",
    ],
)
def test_what_is_no_config(source: str) -> None:
    assert read_config(source) is None


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("'a'", "a"),
        ('"it\'s \\"a\\"\\n"', 'it\'s "a"\n'),
        ("`a\\`b`", "a`b"),
        ("5", 5),
        ("-5", -5),
        ("+1.5", 1.5),
        ("1_000", 1000),
        ("0x10", 16),
        ("1e3", 1000),
        ("true", True),
        ("false", False),
        ("['GET', 'POST'] as const", ["GET", "POST"]),
        ("[['a'], [1, [2]],]", [["a"], [1, [2]]]),
        ("{ a: { 'b-c': 1 } }", {"a": {"b-c": 1}}),
        ("('a')", "a"),
        ("'a'!", "a"),
    ],
)
def test_literals(literal: str, value: object) -> None:
    assert read_config(f"export const config = {{ path: {literal} }}") == {"path": value}


def test_keys_are_those_of_a_manifest() -> None:
    source = "export const config = { retryDelay: [1], excludedPath: '/a', returnedStatus: 'ignore', retry_delay: 5 }"
    assert read_config(source) == {"retry_delay": 5, "excluded_path": "/a", "returned_status": "ignore"}


def test_what_is_null_or_undefined_is_not_said() -> None:
    assert read_config("export const config = { path: null, schedule: undefined, method: 'GET' }") == {
        "method": "GET"
    }


def test_netlifys_own_keys_are_passed_over_whatever_they_are() -> None:
    keys = ", ".join(f"{key}: compute()" for key in NETLIFY_KEYS)
    assert read_config(f"export const config = {{ {keys}, path: '/a' }}") == {"path": "/a"}


@pytest.mark.parametrize(
    "source",
    [
        "export const handler = schedule('@daily', async () => {})",
        'exports.handler = schedule("@daily", handler)',
        "module.exports.handler = functions.schedule(`@daily`, handler)",
        "module.exports = { handler: schedule('@daily', handler) }",
        "const handler: Handler = schedule('@daily', f); export { handler };",
        "const cron = '@daily'; export const handler = schedule(cron, f)",
        "export default schedule('@daily', f)",
        "exports.handler = schedule('@hourly', f); exports.config = { schedule: '@daily' }",
    ],
)
def test_a_handler_that_is_wrapped_in_schedule(source: str) -> None:
    assert read_config(source) == {"schedule": "@daily"}


@pytest.mark.parametrize(
    "source",
    ["exports.handler = other('@daily', f)", "schedule('@daily', f)", "exports.handler = schedule()"],
)
def test_what_is_no_schedule(source: str) -> None:
    assert read_config(source) is None


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("export const config = { path: PATH }", ", line 1: the value of 'path' in config must be written"),
        ("export const config = { path }", ", line 1: the value of 'path' in config"),
        ("export const config = {\n\n  path: `/${x}` }", ", line 3: the value of 'path' in config"),
        ("export const config = { path: '/a' + x }", ", line 1: the value of 'path' in config"),
        ("export const config = { path: ['/a', ...more] }", ", line 1: the value of 'path' in config"),
        (
            "export const config = { path: ['/a', , '/b'] , method() {} }",
            ", line 1: the value of 'method' in config",
        ),
        ("export const config = { timeout: 5 * 60 }", ", line 1: the value of 'timeout' in config"),
        ("export const config = { timeout: -'5' }", ", line 1: the value of 'timeout' in config"),
        ("export const config = { timeout: 10n }", ", line 1: the value of 'timeout' in config"),
        ("export const config = { path: /a/ }", ", line 1: the value of 'path' in config"),
        ("export const config = { ...base, path: '/a' }", ", line 1: a key in config must be written"),
        ("export const config = { [key]: '/a' }", ", line 1: a key in config must be written"),
        (
            "exports.handler = schedule(cron(), f)",
            ", line 1: the first argument of schedule() must be written",
        ),
        ("export const config = { path: " + "[" * 5000 + "]" * 5000 + "}", ": config is nested too deeply."),
    ],
    ids=range(14),
)
def test_a_config_that_is_no_literal(source: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(source)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            b"exports.a = 1;\nexports.b = ]",
            ", line 2, is not valid JavaScript or TypeScript: Expression expected.",
        ),
        (b"export const handler = async (: =>", ", line 1, is not valid JavaScript or TypeScript: "),
        (b"\x7fELF\x02\x01\x01", ", line 1, is not valid JavaScript or TypeScript: "),
    ],
)
def test_what_is_not_valid(source: bytes, sentence: str) -> None:
    node()
    with pytest.raises(NotValid) as caught:
        RUNTIME.read_config(source)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "source",
    [
        b"function f<in out T>(){}",  # what the parser here does not know yet, Node does
        b"enum Color { Red }",
        b"if (x) return 5; with (a) b = 010;",
        b"#!/usr/bin/env node\nexport default 5",
        b"let a = <b>c; @d class E {}",
    ],
)
def test_what_is_valid(source: bytes) -> None:
    node()
    assert RUNTIME.read_config(source) is None
