"""Where functions may be: many small files, each of which says where it is."""

from dataclasses import dataclass
from pathlib import Path

from tests.e2e.netlify.rows import JAVASCRIPT, PYTHON

__all__ = ["ALIASES", "LAYOUTS", "ORDERS", "SUFFIXES", "Layout", "write"]

SUFFIXES = {PYTHON: (".py",), JAVASCRIPT: (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")}
ALIASES = ("hourly", "daily", "weekly", "monthly", "yearly")

IN_PYTHON = "{config}def handler(event, context):\n    return {{'statusCode': 200, 'body': {file!r}}}\n"
IN_COMMONJS = "{config}exports.handler = async (event) => ({{ statusCode: 200, body: {file!r} }});\n"
IN_ESM = "{config}export const handler = async (event) => ({{ statusCode: 200, body: {file!r} }});\n"
IN_TYPESCRIPT = {".ts": IN_ESM, ".mts": IN_ESM, ".cts": IN_COMMONJS}


@dataclass(frozen=True, slots=True)
class Layout:
    """Files, `{x}` being the language's first suffix, and which of them is the function `name`, if any is."""

    name: str
    files: tuple[str, ...]
    served: str | None


LAYOUTS = {
    "a file": Layout("flat", ("flat{x}",), "flat{x}"),
    "its name in a folder": Layout("named", ("named/named{x}",), "named/named{x}"),
    "index in a folder": Layout("indexed", ("indexed/index{x}",), "indexed/index{x}"),
    "a folder before a file": Layout("two", ("two{x}", "two/two{x}"), "two/two{x}"),
    "a folder's index before a file": Layout("three", ("three{x}", "three/index{x}"), "three/index{x}"),
    "its name before index": Layout("four", ("four/index{x}", "four/four{x}"), "four/four{x}"),
    "deeper": Layout("deep", ("deep/deep/deep{x}", "deep/deep/index{x}"), None),
    "another file in a folder": Layout("elsewhere", ("other/elsewhere{x}",), None),
    "a folder with another file": Layout("other", ("other/elsewhere{x}",), None),
    "index at the top": Layout("index", ("index{x}",), "index{x}"),
    "upper case": Layout("Upper_Case-1", ("Upper_Case-1{x}",), "Upper_Case-1{x}"),
    "a dot": Layout("dotted.name", ("dotted.name{x}",), None),
    "a space": Layout("a%20space", ("a space{x}",), None),
    "another alphabet": Layout("%C3%BCber", ("über{x}",), None),
    "a dollar": Layout("$cash", ("$cash{x}",), None),
    "another suffix": Layout("words", ("words.txt", "words.jsx", "words.pyc"), None),
    "the bare word": Layout("background", ("background{x}",), "background{x}"),
    "upper case in the suffix": Layout("x-Background", ("x-Background{x}",), "x-Background{x}"),
    "an underscore": Layout("x_background", ("x_background{x}",), "x_background{x}"),
    "something behind the suffix": Layout("x-background-y", ("x-background-y{x}",), "x-background-y{x}"),
}

# Of the same name with several suffixes: the first one that is there.
ORDERS = {
    f"order-{suffix[1:]}": SUFFIXES[JAVASCRIPT][place:] for place, suffix in enumerate(SUFFIXES[JAVASCRIPT])
}


def source(file: str, config: str = "") -> str:
    """A function that answers with the name of its file."""
    suffix = Path(file).suffix
    if suffix == ".py":
        return IN_PYTHON.format(file=file, config=config and f"config = {config}\n")
    if suffix in IN_TYPESCRIPT:
        typed = IN_TYPESCRIPT[suffix].replace("(event)", "(event: {{ path: string }})")
        return typed.format(file=file, config=config)
    return (IN_ESM if suffix == ".mjs" else IN_COMMONJS).format(
        file=file, config=config and f"exports.config = {config};\n"
    )


def write(folder: Path, language: str) -> None:
    """All layouts in one folder of functions, a function for each word that is a schedule, and two that no
    parser reads."""
    files = {file.format(x=SUFFIXES[language][0]) for layout in LAYOUTS.values() for file in layout.files}
    if language == JAVASCRIPT:
        files |= {f"{name}{suffix}" for name, suffixes in ORDERS.items() for suffix in suffixes}
        # Neither the place nor the name is outdone by an earlier suffix.
        files |= {
            "order-place.js",
            "order-place/index.cts",
            "order-name/index.js",
            "order-name/order-name.cts",
        }
    for alias in ALIASES:
        file = f"at-{alias}{SUFFIXES[language][0]}"
        key = "'schedule'" if language == PYTHON else "schedule"
        (folder / file).write_text(source(file, f"{{{key}: '@{alias}'}}"))
    for name in ("no-syntax", "no-syntax-background"):  # real files would break the linters
        (folder / f"{name}{SUFFIXES[language][0]}").write_text("handler = (\n")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(source(file))
