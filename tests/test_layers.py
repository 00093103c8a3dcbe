"""Imports go down the list of layers only, and some layers know less still.

The sources are parsed, never imported, so an import inside a function or
under ``TYPE_CHECKING`` counts like any other.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.trial import unittest

ROOT = "scalingo_proxy"
SOURCES = Path(__file__).resolve().parent.parent / ROOT

#: Each row may import itself and the rows above it in this list.
LAYERS = (
    ("version",),
    ("errors",),
    ("model",),
    ("interfaces",),
    ("wire",),
    ("routing",),
    ("transports",),
    ("protocols",),
    ("resolvers",),
    ("services",),
    ("settings", "config", "config_*"),
    ("running",),
    ("assembly",),
    ("tap", "cli", "cli_*", "__main__"),
)

#: What a layer may not know although the order would allow it.
MAY_NOT_KNOW = {
    "errors": {"twisted"},
    "model": {"twisted"},
    "wire": {"twisted", "asyncio", "socket", "time", "logging"},
    "routing": {"twisted", "asyncio", "socket", "time", "logging"},
    "transports": {f"{ROOT}.wire", f"{ROOT}.routing"},
    "resolvers": {f"{ROOT}.transports", f"{ROOT}.protocols"},
}

#: What imports stand in; in expressions, which are most of a tree, there are none.
STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)

REACTOR = "twisted.internet.reactor"
MAY_IMPORT_THE_REACTOR = {f"{ROOT}.tap", f"{ROOT}.cli"}


@attrs.frozen
class Import:
    """One name that an import statement binds, with the statement's place.

    :ivar at_load: whether it runs when the module is imported; neither an
        import in a function nor one for the type checker does.
    """

    target: str
    line: int
    text: str
    at_load: bool


def module_name(path: str) -> str:
    """The dotted name of a file of ours, given by its path below the root."""
    return ".".join([ROOT, *Path(path).with_suffix("").parts]).removesuffix(".__init__")


@functools.cache
def imports_of(path: str, source: str) -> tuple[Import, ...]:
    """Every import of a file of ours, relative ones resolved."""
    return tuple(_imports_of(path, source))


def _imports_of(path: str, source: str) -> Iterator[Import]:
    module = module_name(path)
    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
    for node, at_load in statements_of(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            ancestors = package.split(".")[: -node.level + 1 or None] if node.level else []
            origin = [*ancestors, *filter(None, [node.module])]
            targets = [".".join([*origin, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(target, node.lineno, ast.unparse(node), at_load)


def statements_of(node: ast.AST, *, at_load: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """A node and the statements in it, each with whether it runs when the module is imported."""
    yield node, at_load
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        at_load = False
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        at_load = False
    for child in ast.iter_child_nodes(node):
        if isinstance(child, STATEMENTS):
            yield from statements_of(child, at_load=at_load)


def row_of(module: str) -> int | None:
    """The layer of a module of ours, counted from the bottom; None without one."""
    stem = module.removeprefix(f"{ROOT}.").partition(".")[0]
    for row, names in enumerate(LAYERS):
        if any(stem == name or (name.endswith("*") and stem.startswith(name[:-1])) for name in names):
            return row
    return None


def is_within(target: str, name: str) -> bool:
    """Whether *target* is the module *name* or something inside it."""
    return target == name or target.startswith(f"{name}.")


def objection(module: str, target: str, modules: frozenset[str]) -> str | None:
    """Why *module* may not import *target*; None when it may.

    :param modules: the names of all modules of ours, to tell a submodule
        from a name that the package root exports.
    """
    if is_within(target, REACTOR) and module not in MAY_IMPORT_THE_REACTOR:
        return "the global reactor is for tap.py and cli.py alone"
    if is_within(module, f"{ROOT}.testing"):
        return None
    stem = module.removeprefix(f"{ROOT}.").partition(".")[0]
    for name in MAY_NOT_KNOW.get(stem, ()):
        if is_within(target, name):
            return f"{stem} may not know {name}"
    if not is_within(target, ROOT):
        return None
    if is_within(target, f"{ROOT}.testing"):
        return "testing is for tests and embedders only"
    imported = target if target in modules else target.rpartition(".")[0]
    if imported in ("", ROOT):
        return "nobody inside imports the package root; import the submodule"
    if module == ROOT:
        return None
    mine, other = row_of(module), row_of(imported)
    if other is None:
        return f"{imported} has no layer: add it to LAYERS"
    if mine is not None and other > mine:
        return f"{stem} may not import upward"
    return None


def complaints_about(sources: dict[str, str]) -> list[str]:
    """What is wrong with a package given as ``{path below the root: source}``."""
    modules = frozenset(map(module_name, sources))
    complaints = []
    for path, source in sorted(sources.items()):
        module = module_name(path)
        if module != ROOT and not is_within(module, f"{ROOT}.testing") and row_of(module) is None:
            complaints.append(f"{ROOT}/{path}:1: {module} has no layer: add it to LAYERS")
        for found in imports_of(path, source):
            reason = objection(module, found.target, modules)
            if reason is not None:
                complaints.append(f"{ROOT}/{path}:{found.line}: {reason}: {found.text}")
    return list(dict.fromkeys(complaints))


def loads_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which modules of ours each of them imports while it is loaded."""
    modules = set(map(module_name, sources)) - {ROOT}
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        targets = [found.target for found in imports_of(path, source) if found.at_load]
        graph[module_name(path)] = {
            name for target in targets for name in (target, target.rpartition(".")[0]) if name in modules
        }
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a graph as a list of its nodes; empty when there is none."""
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node not in done:
            for following in sorted(graph.get(node, ())):
                if found := walk(following, [*trail, node]):
                    return found
            done.add(node)
        return []

    return next(filter(None, (walk(node, []) for node in sorted(graph))), [])


def our_sources() -> dict[str, str]:
    return {str(path.relative_to(SOURCES)): path.read_text("utf-8") for path in sorted(SOURCES.rglob("*.py"))}


class LayersTests(unittest.SynchronousTestCase):
    """The package keeps its own order."""

    def test_imports_go_down_only(self) -> None:
        """No module imports what its layer may not know."""
        if complaints := complaints_about(our_sources()):
            self.fail("\n" + "\n".join(complaints))

    def test_no_cycles(self) -> None:
        """No module needs itself to be loaded, however long the way round."""
        if cycle := cycle_in(loads_of(our_sources())):
            self.fail(" imports ".join(cycle))


class CheckerTests(unittest.SynchronousTestCase):
    """The checker finds what it is there to find."""

    def complaints(self, path: str, source: str, **others: str) -> list[str]:
        """Complaints about one file in a small package."""
        package = {
            "__init__.py": "Name = 1",
            "errors.py": "",
            "model.py": "",
            "wire/__init__.py": "",
            "wire/head.py": "",
            "routing/__init__.py": "",
            "routing/pool.py": "",
            "testing/__init__.py": "",
            **others,
        }
        return complaints_about({**package, path: textwrap.dedent(source)})

    def assert_refused(self, path: str, source: str, *words: str) -> None:
        """One complaint, naming file, line and statement."""
        (complaint,) = self.complaints(path, source)
        for word in words:
            self.assertIn(word, complaint)

    def test_downward_is_fine(self) -> None:
        """A module may import its own layer and those below."""
        source = "from scalingo_proxy.model import App\nimport scalingo_proxy.wire.head"
        self.assertEqual(self.complaints("routing/table.py", source), [])

    def test_upward(self) -> None:
        """The complaint names the file, the line and the statement."""
        self.assert_refused(
            "wire/body.py",
            "import os\nfrom scalingo_proxy.routing.pool import Pool\n",
            "scalingo_proxy/wire/body.py:2: ",
            "wire may not import upward: from scalingo_proxy.routing.pool import Pool",
        )

    def test_upward_as_submodule(self) -> None:
        """Naming the submodule after ``import`` hides nothing."""
        self.assert_refused("errors.py", "from scalingo_proxy.routing import pool", "errors.py:1: ", "upward")

    def test_relative(self) -> None:
        """A relative import is resolved before it is judged."""
        self.assert_refused("wire/body.py", "from ..routing.pool import Pool", "wire may not import upward")
        self.assert_refused("wire/body.py", "from .. import Name", "package root")
        self.assertEqual(self.complaints("wire/body.py", "from . import head\nfrom .head import parse"), [])

    def test_inside_a_function(self) -> None:
        """An import that runs late is an import."""
        self.assert_refused(
            "wire/body.py", "def parse():\n    import scalingo_proxy.routing\n", "body.py:2: ", "upward"
        )

    def test_under_type_checking(self) -> None:
        """An import for the type checker is knowledge too."""
        self.assert_refused(
            "model.py",
            """\
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from scalingo_proxy.routing.pool import Pool
            """,
            "model.py:3: ",
            "upward",
        )

    def test_twisted_in_wire(self) -> None:
        """wire/ and routing/ are free of Twisted, however it is spelled."""
        for path in ("wire/body.py", "routing/table.py"):
            for source in (
                "import twisted",
                "import twisted.internet.defer as d",
                "from twisted import python",
                "from twisted.internet.defer import Deferred",
            ):
                self.assert_refused(path, source, "may not know twisted", source)

    def test_zope_in_wire(self) -> None:
        """zope.interface does no I/O and is welcome everywhere."""
        self.assertEqual(self.complaints("wire/body.py", "from zope.interface import implementer"), [])

    def test_reactor(self) -> None:
        """The global reactor is refused everywhere, functions included."""
        source = "def start():\n    from twisted.internet import reactor\n"
        for path in ("protocols/front.py", "testing/world.py", "assembly.py", "__init__.py", "cli_check.py"):
            self.assert_refused(path, source, ":2: the global reactor")
        self.assert_refused("assembly.py", "import twisted.internet.reactor as r", "global reactor")
        self.assert_refused("assembly.py", "from twisted.internet.reactor import callLater", "global reactor")

    def test_reactor_in_the_programs(self) -> None:
        """tap.py and cli.py are where the global reactor enters."""
        for path in ("tap.py", "cli.py"):
            self.assertEqual(self.complaints(path, "from twisted.internet import reactor"), [])

    def test_package_root(self) -> None:
        """Inside, nobody leans on what the package root exports."""
        for source in ("import scalingo_proxy", "from scalingo_proxy import Name"):
            self.assert_refused("assembly.py", source, "nobody inside imports the package root", source)

    def test_package_root_itself(self) -> None:
        """The package root may gather names from any layer, but not from testing."""
        self.assertEqual(self.complaints("__init__.py", "from scalingo_proxy.routing.pool import Pool"), [])
        self.assert_refused("__init__.py", "from scalingo_proxy.testing import World", "testing is for tests")

    def test_testing(self) -> None:
        """The fakes may use anything, and nobody inside uses them."""
        self.assertEqual(self.complaints("testing/world.py", "import scalingo_proxy.routing.pool"), [])
        self.assert_refused("services/demo.py", "import scalingo_proxy.testing", "testing is for tests")

    def test_resolvers_and_protocols(self) -> None:
        """Resolvers stand above protocols and still may not know them."""
        package = {"protocols/__init__.py": "", "protocols/front.py": ""}
        source = "from scalingo_proxy.protocols.front import Front"
        (complaint,) = self.complaints("resolvers/file.py", source, **package)
        self.assertIn("resolvers may not know scalingo_proxy.protocols", complaint)

    def test_unknown_module(self) -> None:
        """A module that nobody gave a layer is reported, not waved through."""
        self.assert_refused("helpers.py", "", "scalingo_proxy/helpers.py:1: ", "has no layer")

    def test_loads(self) -> None:
        """What runs late or only for the type checker does not make a cycle."""
        source = "def f():\n    import scalingo_proxy.{0}\nif TYPE_CHECKING:\n    import scalingo_proxy.{0}\n"
        sources = {
            "errors.py": source.format("model"),
            "model.py": "from scalingo_proxy.errors import ProxyError\nfrom scalingo_proxy import errors",
        }
        graph = {"scalingo_proxy.errors": set(), "scalingo_proxy.model": {"scalingo_proxy.errors"}}
        self.assertEqual(loads_of(sources), graph)

    def test_cycle(self) -> None:
        """A cycle is told as the way round."""
        self.assertEqual(cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}), ["b", "c", "b"])
        self.assertEqual(cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}), [])
