"""The version, for the banner, the metrics and the distribution's metadata."""

__all__ = ["VERSION"]

VERSION = "26.11.0.dev0"
