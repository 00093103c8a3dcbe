"""Tests of scalingo_proxy.config_lines."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config_lines import key_lines, line_of

DOCUMENT = '''\
# a comment with = and [brackets]
top = 1

[proxy]  # after a header
name = "a # b"
"quoted key" = 'x'
dotted . key = 1979-05-27 07:32:00
multi = """
a = 1
[health]
\\""" still "" inside""""
last = \'\'\'
b = 2\'\'\'

[[listen]]
endpoint = "8080"
[[listen]]
trusted_proxies = [ # one
  "10.0.0.0/8", "]",  # two
  {a = 1, b.c = [
    2]},
]
[[app]]
name = "one"
  [app.health]
  path = "/"
[[app]]
[app.health]
rise = 1
[[app.nested]]
x = 1
[[app.nested]]
x = {y = 2}
'''


class KeyLinesTests(SynchronousTestCase):
    """Where keys stand."""

    def setUp(self) -> None:
        tomllib.loads(DOCUMENT)  # the scanner is for valid documents only
        self.lines = key_lines(DOCUMENT)
        self.source = DOCUMENT.splitlines()

    def found(self, *path: str | int) -> str:
        return self.source[self.lines[path] - 1].strip()

    def test_plain_keys(self) -> None:
        """Keys of the root and of a table are found, comments are passed over."""
        self.assertEqual(self.found("top"), "top = 1")
        self.assertEqual(self.found("proxy"), "[proxy]  # after a header")
        self.assertEqual(self.found("proxy", "name"), 'name = "a # b"')

    def test_quoted_and_dotted(self) -> None:
        """A quoted key has its quotes taken off, a dotted one is several steps."""
        self.assertEqual(self.found("proxy", "quoted key"), "\"quoted key\" = 'x'")
        self.assertEqual(self.lines["proxy", "dotted"], self.lines["proxy", "dotted", "key"])

    def test_text_over_several_lines(self) -> None:
        """What looks like keys inside a text is none, and lines are counted through it."""
        self.assertNotIn(("proxy", "a"), self.lines)
        self.assertNotIn(("proxy", "b"), self.lines)
        self.assertNotIn(("health",), self.lines)
        self.assertEqual(self.found("proxy", "last"), "last = '''")

    def test_arrays_of_tables(self) -> None:
        """Each table of an array has its own header and keys."""
        self.assertEqual(self.found("listen", 0, "endpoint"), 'endpoint = "8080"')
        self.assertEqual(self.lines["listen", 1], self.lines["listen", 0] + 2)
        self.assertEqual(self.found("app", 0, "health", "path"), 'path = "/"')
        self.assertEqual(self.found("app", 1, "health", "rise"), "rise = 1")
        self.assertEqual(self.found("app", 1, "nested", 1, "x", "y"), "x = {y = 2}")

    def test_items_of_lists(self) -> None:
        """Items are found on their own lines, inline tables and nested lists included."""
        self.assertEqual(self.found("listen", 1, "trusted_proxies", 1)[:14], '"10.0.0.0/8", ')
        self.assertEqual(self.found("listen", 1, "trusted_proxies", 2, "a"), "{a = 1, b.c = [")
        self.assertEqual(self.found("listen", 1, "trusted_proxies", 2, "b", "c", 0), "2]},")

    def test_windows_lines(self) -> None:
        """CRLF is one line end."""
        self.assertEqual(key_lines(DOCUMENT.replace("\n", "\r\n")), self.lines)

    def test_nearest(self) -> None:
        """What is not written has the line of what is around it, or none."""
        self.assertEqual(line_of(self.lines, ("app", 0, "domains")), self.lines["app", 0])
        self.assertEqual(line_of(self.lines, ("nowhere", "at all")), 0)

    def test_hopelessly_deep(self) -> None:
        """Nesting that exhausts the stack costs lines, not the report."""
        document = "a = 1\nb = " + "[" * 5000 + "]" * 5000
        self.assertEqual(key_lines(document)[("a",)], 1)


def _paths(path: tuple[str | int, ...], value: Any) -> set[tuple[str | int, ...]]:
    found = {path} if path else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        found |= _paths((*path, step), item)
    return found


_keys = st.sampled_from(["a", "b-1", '"c d"', "'e.f'", '"\\"g"', "h . i"])
_values = st.recursive(
    st.sampled_from(
        ["1", "true", '"x"', "'#'", '"\\\\"', '"""\n[x]\n"y" """', "'''\n]'''", "2020-01-01 00:00:00"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[ # c\n" + ",\n".join(items) + "\n]")
        | st.lists(inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"k{index} = {item}" for index, item in enumerate(items)) + "}"
        )
    ),
    max_leaves=6,
)
_pairs = st.lists(st.tuples(_keys, _values), max_size=3, unique_by=lambda pair: pair[0]).map(
    lambda pairs: "".join(f"{key} = {value} # c\n" for key, value in pairs)
)
_tables = st.lists(
    st.tuples(st.sampled_from(["[[t]]", "[[ t ]]", "[[t]]\n[t.sub]", "[[t]]\n[[t.more]]"]), _pairs)
)


class AgainstTomllibTests(SynchronousTestCase):
    """The scanner finds what tomllib finds."""

    @settings(deadline=None)
    @given(_pairs, _tables)
    def test_any_document(self, pairs: str, tables: list[tuple[str, str]]) -> None:
        """Every path of a parsed document has a line, and there are no others."""
        document = pairs + "".join(f"{header}\n{body}" for header, body in tables)
        self.assertEqual(set(key_lines(document)), _paths((), tomllib.loads(document)))
