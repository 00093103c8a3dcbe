"""A soak of the running program: real sockets, real processes, and trouble at random.

``python -m tests.soak --minutes 10`` by hand; ``tests/integration/test_soak.py``
runs a short one.
"""
