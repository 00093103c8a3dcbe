"""``python -m tests.corpus.hellos FILE`` writes the bytes of a case to standard output.

``-`` in place of a file turns bytes from standard input into the notation;
``index`` writes ``INDEX.md`` anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.corpus.hellos import HERE, encode, index_of, load_hellos, read_hello

if sys.argv[1] == "-":
    sys.stdout.write(encode(sys.stdin.buffer.read()))
elif sys.argv[1] == "index":
    (HERE / "INDEX.md").write_text(index_of(load_hellos()), "utf-8")
else:
    sys.stdout.buffer.write(read_hello(Path(sys.argv[1]).resolve()).data)
