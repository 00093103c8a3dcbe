"""``python -m tests.corpus FILE`` writes the input of a case as the bytes it stands for.

``python -m tests.corpus -`` reads bytes from standard input and writes them
in the notation of the files, to make a new case of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.corpus import encode, read_case

if sys.argv[1] == "-":
    sys.stdout.write(encode(sys.stdin.buffer.read()) + "\n")
else:
    sys.stdout.buffer.write(read_case(Path(sys.argv[1]).resolve()).input)
