"""The tests of scalingo_proxy."""

import gc
import sys

if "twisted.trial" in sys.modules:
    # A tenth of the time of tests that make a world for each case went into collecting after
    # every 700 objects; what measures the proxy itself runs as the interpreter comes.
    gc.set_threshold(20_000, 20, 20)
