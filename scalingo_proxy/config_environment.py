"""Settings from the environment: ``SCALINGO_PROXY_<SECTION>_<KEY>``.

Only single values of the plain tables can be told this way.  A variable that
names none is warned of rather than refused, because others put variables
into the same environment: Kubernetes describes a service that is called
``scalingo-proxy`` by a whole family of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from scalingo_proxy.model import Health, Limits, Quarantine, Timeouts
from scalingo_proxy.resolvers.strict_tables import Path, did_you_mean
from scalingo_proxy.settings import AdminSettings, LogSettings, MetricsSettings, ProxySettings

__all__ = ["Overrides", "read_environment"]

PREFIX = "SCALINGO_PROXY_"

_SECTIONS: Mapping[str, type[attrs.AttrsInstance]] = {
    "proxy": ProxySettings,
    "admin": AdminSettings,
    "timeouts": Timeouts,
    "limits": Limits,
    "health": Health,
    "quarantine": Quarantine,
    "log": LogSettings,
    "metrics": MetricsSettings,
}

#: The variable of each key path, with what turns its text into a value.
_VARIABLES: Mapping[str, tuple[str, str, str]] = {
    f"{PREFIX}{section}_{field.name}".upper(): (section, field.name, str(field.type))
    for section, settings in _SECTIONS.items()
    for field in attrs.fields(settings)
}

#: Variables of the same family that are read elsewhere: where the commands find the admin API.
_OTHERS = frozenset({f"{PREFIX}ADMIN"})

# What Kubernetes sets for the services of a namespace ("service links").
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")


@attrs.frozen
class Overrides:
    """What the environment says, by key path.

    :ivar values: section, key and value.
    :ivar warnings: a sentence for each variable that names no setting.
    """

    values: tuple[tuple[str, str, Any], ...]
    warnings: list[str]

    def apply(self, document: dict[str, Any]) -> None:
        """Put the values into *document*; a section that is no table stays, to be complained of."""
        for section, key, value in self.values:
            table = document.setdefault(section, {})
            if isinstance(table, dict):
                table[key] = value

    def variable(self, path: Path) -> str:
        """The variable that the value at *path* comes from, or ``""``."""
        if any(path[:2] == (section, key) for section, key, _value in self.values):
            return f"{PREFIX}{path[0]}_{path[1]}".upper()
        return ""


def read_environment(environ: Mapping[str, str]) -> Overrides:
    """Find the settings in *environ*."""
    values = []
    warnings = []
    for variable, text in sorted(environ.items()):
        if variable in _VARIABLES:
            section, key, kind = _VARIABLES[variable]
            values.append((section, key, _value(text, kind)))
        elif variable.startswith(PREFIX) and variable not in _OTHERS and not _SERVICE_LINK.search(variable):
            warnings.append(f"{variable}: no setting has this name{did_you_mean(variable, _VARIABLES)}")
    return Overrides(tuple(values), warnings)


def _value(text: str, kind: str) -> Any:
    """The value a text stands for; what does not fit stays text, and its reader says so."""
    try:
        if kind == "bool":
            return {"true": True, "false": False}.get(text.strip().lower(), text)
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        pass
    return text
