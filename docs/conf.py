import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scalingo_proxy.version import VERSION

project = "scalingo_proxy"
author = "The scalingo_proxy maintainers"
copyright = f"2026, {author}"
version = release = VERSION

root_doc = "index"
# News fragments are gathered into the changelog by towncrier.
exclude_patterns = ["_build", "changes"]
default_role = "literal"
nitpicky = True

html_theme = "furo"
html_title = f"{project} {VERSION}"
html_show_sourcelink = False
