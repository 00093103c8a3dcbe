"""Bytes to values and back, without I/O: a value, "need more", or an error."""
