"""The table of routes: which function a request is for. Pure; it is asked, it answers nobody.

Functions without a path of their own are found by their name, and not here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quarterhour.function import Manifest, default_route
from quarterhour.route import Pattern, compiled

__all__ = ["Destination", "Routes", "at_default_route"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The function that a request is for, and the parts of its path that have names."""

    manifest: Manifest
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path of a function."""

    pattern: Pattern
    excluded: tuple[Pattern, ...]
    manifest: Manifest

    def destination(self, path: str, method: str) -> Destination | None:
        """Where a request with this path goes, if it goes this way."""
        if not self.manifest.takes(method):
            return None
        params = self.pattern.match(path)
        if params is None or any(pattern.match(path) is not None for pattern in self.excluded):
            return None
        return Destination(manifest=self.manifest, params=params)


class Routes:
    """All paths of all functions. `complaints`: sentences about those that are not served as they should be.

    Of several that match, the first one gets the request: a literal path before a pattern, the pattern
    that is fixed for longer before the other one, one without `*` before one with it, and then by name.
    """

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        complaints: list[str] = []
        routes = [route for manifest in manifests for route in _routes(manifest, complaints)]
        routes.sort(key=_rank)
        literals = defaultdict(list)
        for route in routes:
            if route.pattern.literal is not None:
                literals[route.pattern.literal].append(route)
        self._literals: Mapping[str, Sequence[Route]] = dict(literals)
        self._patterns = [route for route in routes if route.pattern.literal is None]
        self.complaints = (*complaints, *_rivals(routes))

    def __bool__(self) -> bool:
        return bool(self._literals or self._patterns)

    def find(self, raw_path: bytes, method: str) -> Destination | None:
        """Where the request goes, None if no route is for it."""
        if not raw_path.isascii() or not raw_path.startswith(b"/"):
            return None
        path = raw_path.decode("ascii")
        for routes in (self._literal(path), self._patterns):
            for route in routes:
                destination = route.destination(path, method)
                if destination is not None:
                    return destination
        return None

    def _literal(self, path: str) -> Sequence[Route]:
        exact = self._literals.get(path, ())
        # As with Netlify, a slash at the end may be too many.
        return (*exact, *self._literals.get(path[:-1], ())) if path.endswith("/") else exact


def at_default_route(manifest: Manifest | None, method: str) -> Manifest | None:
    """Who a request to a function's default route is for: it, unless it says that it is elsewhere."""
    if manifest is None or not (manifest.path or manifest.method):
        return manifest
    reached = default_route(manifest.name) in manifest.paths and manifest.takes(method)
    return manifest if reached else None


def _routes(manifest: Manifest, complaints: list[str]) -> list[Route]:
    try:
        patterns = [compiled(path) for path in manifest.path]
        excluded = tuple(compiled(path) for path in manifest.excluded_path)
    except ValueError:
        # Its runner has checked it, so that it knows more of patterns than this gateway.
        complaints.append(
            f"{manifest.name} is not served: a path of its own is none that this gateway knows."
        )
        return []
    return [Route(pattern=pattern, excluded=excluded, manifest=manifest) for pattern in patterns]


def _rank(route: Route) -> tuple[int, bool, str]:
    return -len(route.pattern.start), "*" in route.pattern.text, route.manifest.name


def _rivals(routes: Iterable[Route]) -> list[str]:
    """A sentence for each path of a function that another one has taken before it, by the same words."""
    seen: defaultdict[str, list[Manifest]] = defaultdict(list)
    sentences = []
    for route in routes:
        earlier = seen[route.pattern.text]
        if winner := next((one for one in earlier if _share_a_method(one, route.manifest)), None):
            sentences.append(
                f"{winner.name} and {route.manifest.name} both have the path {route.pattern.text}; "
                f"{winner.name} gets its requests."
            )
        earlier.append(route.manifest)
    return sentences


def _share_a_method(one: Manifest, other: Manifest) -> bool:
    return not (one.method and other.method) or not set(one.method).isdisjoint(other.method)
