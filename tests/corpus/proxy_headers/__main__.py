"""``python -m tests.corpus.proxy_headers FILE`` writes the bytes of a case to standard output.

``index`` in place of a file writes ``INDEX.md`` anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.corpus.proxy_headers import HERE, index_of, load_headers, read_header

if sys.argv[1] == "index":
    (HERE / "INDEX.md").write_text(index_of(load_headers()), "utf-8")
else:
    sys.stdout.buffer.write(read_header(Path(sys.argv[1]).resolve()).data)
