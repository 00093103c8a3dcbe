"""The values of a page that change while somebody looks at it.

A page is rendered from them, and a stream tells which of them have become
different since; so a page and its stream cannot disagree.  Plain data: no
HTML, no connection.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

__all__ = ["LiveValues"]


@attrs.define
class LiveValues:
    """Values by the keys of the places where they stand.

    :ivar texts: what is written there.
    :ivar states: a word that says how it looks.
    :ivar points: the points of a line, as SVG has them.
    :ivar links: where a link leads.
    :ivar shapes: by region of the page, which places there are: when it
        differs, the region has to be rendered anew.
    """

    texts: dict[str, str] = attrs.field(factory=dict)
    states: dict[str, str] = attrs.field(factory=dict)
    points: dict[str, str] = attrs.field(factory=dict)
    links: dict[str, str] = attrs.field(factory=dict)
    shapes: dict[str, str] = attrs.field(factory=dict)

    def since(self, before: LiveValues) -> Mapping[str, Mapping[str, str]]:
        """What is different from *before*, by kind; kinds without a difference are left out."""
        difference = {}
        for field in attrs.fields(LiveValues):
            old, new = getattr(before, field.name), getattr(self, field.name)
            changed = {key: value for key, value in new.items() if old.get(key) != value}
            if changed:
                difference[field.name] = changed
        return difference
