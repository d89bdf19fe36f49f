"""How Sphinx builds these pages: ``make docs``. Needs no network; every warning is an error."""

from importlib import metadata

project = "Stepline"
author = "the Stepline authors"
copyright = author
try:
    release = metadata.version("stepline")
except metadata.PackageNotFoundError:
    release = "source"

extensions = ["myst_parser"]
myst_heading_anchors = 3
root_doc = "index"
html_theme = "furo"
html_title = "Stepline"
html_show_sourcelink = False
html_copy_source = False
