"""Settings of Sphinx, which makes HTML of the Markdown in docs/: see `make docs`.

The source folder is the repository's root, so that the links between docs/ and the
README, CONTRIBUTING and so on are the same there as on a code host.
"""

project = "zsg"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "zsg"
root_doc = "docs/contents"
include_patterns = [
    "docs/**",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "templates/README.md",
    "cluster_profiles/README.md",
]
exclude_patterns = [".venv", "build", "demo", "zsg-work", "tests"]
myst_heading_anchors = 4  # the anchors of a code host
