"""What the tests of Netlify's behaviour share: a `quarterhour up` for each language, and a third one."""

from collections.abc import Iterator

import pytest

from tests.e2e.netlify.rows import LANGUAGES
from tests.e2e.netlify.sites import Site, Sites
from tests.up import leaving_nothing


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(*names): the rows of rows.py that the test is a case of")


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """They are started when they are first asked for, and run to the end."""
    with leaving_nothing() as started:
        yield Sites(tmp_path_factory.mktemp("netlify"), started)


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    """Every test runs with the functions of each language."""
    return str(request.param)


@pytest.fixture
def site(sites: Sites, language: str) -> Site:
    """`quarterhour up` with this language's functions."""
    return sites.one(language)
