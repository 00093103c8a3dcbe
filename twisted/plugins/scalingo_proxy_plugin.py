"""Tells ``twistd`` and ``twist`` that the proxy exists.

Twisted imports every plugin for each ``--help``, so the module that knows the
options is named by string and imported only when it is asked for.
"""

from twisted.application.service import ServiceMaker

scalingo_proxy = ServiceMaker(
    "scalingo-proxy",
    "scalingo_proxy.tap",
    "An edge proxy for platforms of many apps.",
    "scalingo-proxy",
)
