"""Which files are functions, under which names, and what they say of themselves: "Finding functions"."""

from pathlib import Path

import pytest

from tests.e2e.netlify.cli import run
from tests.e2e.netlify.layouts import LAYOUTS, ORDERS, SUFFIXES, source
from tests.e2e.netlify.rows import JAVASCRIPT, PYTHON, javascript, row
from tests.e2e.netlify.sites import Site, Sites
from tests.e2e.wire import PREFIX

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_FOUND = (404, b"Function not found...")


@row("folder")
async def test_the_folder_is_the_one_that_the_file_names(site: Site) -> None:
    first, *_ = site.up.output.read_text().splitlines()
    assert first.endswith(" in lambdas/:")


async def refusal(folder: Path) -> str:
    """The sentence with which `up` refuses to start."""
    status, _, said = await run("up", "--port", "0", folder=folder)
    assert status == 1, said
    return said


# The other two ways are those of the two `up` that all tests speak to.
@row("folder")
@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("netlify.toml", '[functions]\ndirectory = "here"'),
        ("quarterhour.toml", '[build]\nfunctions = "here"'),
    ],
)
async def test_either_key_in_either_file(tmp_path: Path, file: str, lines: str) -> None:
    (tmp_path / file).write_text(lines)
    assert f"There is no folder {tmp_path / 'here'} with functions" in await refusal(tmp_path)


@row("folder")
async def test_the_flag_wins(sites: Sites, language: str) -> None:
    site = sites.settings(language)
    assert (site.up.folder / "quarterhour.toml").read_text() == '[build]\nfunctions = "nowhere"\n'
    assert (await site.call("echo")).status == 200


@row("layouts", "precedence", "names", "not-found")
@pytest.mark.parametrize("case", LAYOUTS)
async def test_layouts(site: Site, case: str) -> None:
    layout = LAYOUTS[case]
    answer = await site.call(layout.name)
    if layout.served is None:
        assert (answer.status, answer.body) == NOT_FOUND
        assert layout.name not in await site.functions()
    else:
        served = layout.served.format(x=SUFFIXES[site.language][0])
        assert (answer.status, answer.body.decode()) == (200, served)


@javascript
@row("suffixes", "layouts")
@pytest.mark.parametrize("name", ORDERS)
async def test_the_first_suffix_counts(site: Site, name: str) -> None:
    assert (await site.call(name)).body.decode() == name + ORDERS[name][0]


@javascript
@row("precedence")
@pytest.mark.parametrize(
    ("name", "file"),
    [("order-place", "order-place/index.cts"), ("order-name", "order-name/order-name.cts")],
)
async def test_place_and_name_count_before_the_suffix(site: Site, name: str, file: str) -> None:
    assert (await site.call(name)).body.decode() == file


@row("two-languages")
async def test_one_name_in_two_languages_is_refused(tmp_path: Path) -> None:
    files = ("twin.py", "twin/index.ts")
    for file in files:
        path = tmp_path / "functions" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source(file))
    sentence = await refusal(tmp_path)
    assert all(f"functions/{file}" in sentence for file in files)


@row("names", "not-found")
async def test_a_file_with_another_name_is_not_listed(site: Site) -> None:
    names = set(await site.functions())
    assert {"echo", "Upper_Case-1"} <= names
    odd = {"dotted", "dotted.name", "a space", "über", "$cash", "words", "shared", "shown", "upper_case-1"}
    assert not names & odd


SYNCHRONOUS, BACKGROUND = 200, 202


@row("background-rule")
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("x-background", BACKGROUND),
        ("inbox-background", BACKGROUND),
        ("outbox-background", BACKGROUND),
        ("background", SYNCHRONOUS),
        ("x-Background", SYNCHRONOUS),
        ("x_background", SYNCHRONOUS),
        ("x-background-y", SYNCHRONOUS),
        ("source-on", BACKGROUND),  # over the TOML, which says no
        ("source-off", SYNCHRONOUS),  # over the TOML, which says yes
        ("source-off-background", SYNCHRONOUS),
        ("toml-on", BACKGROUND),
        ("toml-off-background", SYNCHRONOUS),
    ],
)
async def test_what_makes_a_background_function(site: Site, name: str, status: int) -> None:
    assert (await site.call(name)).status == status
    mode = "background" if status == BACKGROUND else "synchronous"
    assert (await site.functions())[name]["mode"] == mode


@row("config")
async def test_the_config_is_read_without_running_the_module(site: Site) -> None:
    listed = (await site.functions())["unrun"]
    shown = (listed["mode"], listed["paths"], listed["methods"], listed["error"])
    assert shown == ("background", ["/unrun/:word", "/unrun"], ["GET", "PUT"], None)
    assert site.noted("unrun") == []


@row("config")
async def test_a_config_that_only_running_would_tell_is_an_error(site: Site) -> None:
    listed = (await site.functions())["unread"]
    assert "path" in listed["error"]
    assert "literal" in listed["error"]
    answer = await site.call("unread")
    assert (answer.status, answer.json["errorType"]) == (500, "FunctionError")


@row("config", "path")
async def test_a_path_in_the_toml(site: Site) -> None:
    answer = await site.get("/by-toml/hello")
    assert (answer.status, answer.body) == (200, b"hello")
    assert (await site.call("toml-path")).status == 404


@javascript
@row("netlify-config")
async def test_keys_of_netlifys_own_do_no_harm(site: Site) -> None:
    listed = (await site.functions())["modern-named"]
    assert (listed["error"], listed["paths"]) == (None, ["/named/:word"])
    assert (await site.get("/named/x")).body == b"GET"


@row("layouts")
async def test_the_runtime_is_listed(site: Site) -> None:
    runtime = {PYTHON: "python", JAVASCRIPT: "node"}[site.language]
    assert {one["runtime"] for one in (await site.functions()).values()} == {runtime}


@row("layouts")
async def test_the_default_address_is_netlifys(site: Site) -> None:
    assert (await site.functions())["echo"]["url"] == f"{PREFIX}/echo"
