"""Who is let in by address: what is denied, and what alone is allowed.

Lists of networks in, a verdict out.  Where an address comes from (the peer,
a PROXY header, a trusted proxy's word) is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from scalingo_proxy.routing.networks import Networks

__all__ = ["AccessRules"]


class AccessRules:
    """Frozen lists; an address is refused when *deny* has it, or *allow* is not empty and has it not.

    Deny wins, so that one address can be taken out of an allowed network.
    A client without an address (a unix socket, which the file system guards)
    is not judged.

    :param deny: networks as CIDR text; thousands cost one bisection.
    :param allow: when not empty, only these are let in.
    :raises ValueError: naming the first entry that is no network.
    :ivar has_lists: whether there is anything that could keep an address out.
    """

    __slots__ = ("_allow", "_deny", "has_lists")

    def __init__(self, deny: Iterable[str] = (), allow: Iterable[str] = ()) -> None:
        self._deny = Networks(deny)
        self._allow = Networks(allow)
        # Asked for every request, also where there are no lists.
        self.has_lists = bool(self._deny) or bool(self._allow)

    def __bool__(self) -> bool:
        return self.has_lists

    def refusal(self, address: str) -> str:
        """The list that keeps *address* out: ``"deny"``, ``"allow"``, or ``""`` when it may come in."""
        if not address or address.startswith("unix:"):
            return ""
        if self._deny and address in self._deny:
            return "deny"
        if self._allow and address not in self._allow:
            return "allow"
        return ""
