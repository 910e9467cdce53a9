"""Sphinx's settings: `uv run --extra docs sphinx-build -W docs site`."""

project = "raygrid"
author = "The raygrid authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "raygrid"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.xref_missing"]  # links to files beside the documentation
