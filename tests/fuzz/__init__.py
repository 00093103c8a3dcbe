"""Targets for a fuzzer that watches which code its inputs reach.

``python -m tests.fuzz TARGET`` runs one; ``tests/fuzz/test_targets.py`` keeps
them from rotting.
"""
