"""The base of the suites that are mixed into a trial ``TestCase``.

For the type checker it declares what the suites use of trial, which has no
annotations of its own; at run time it is nothing, and trial's methods count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["MixedIntoTestCase"]

if TYPE_CHECKING:

    class MixedIntoTestCase:
        """Whoever inherits from this is going to be a ``TestCase`` as well."""

        failureException: type[AssertionError]

        def assertEqual(self, first: Any, second: Any, msg: object = None) -> Any: ...
        def assertIs(self, first: Any, second: Any, msg: object = None) -> Any: ...
        def assertIsInstance(self, instance: Any, kind: Any, message: object = None) -> Any: ...
        def assertTrue(self, condition: Any, msg: object = None) -> Any: ...
        def flushLoggedErrors(self, *kinds: type[Exception]) -> list[Any]: ...

else:

    class MixedIntoTestCase:
        """Whoever inherits from this is going to be a ``TestCase`` as well."""
