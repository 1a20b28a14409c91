"""The API documentation: the public names' docstrings, and the README."""

project = "captum_attattr"
author = "The captum_attattr authors"
copyright = author  # noqa: A001 (Sphinx's own name)
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
html_theme = "furo"
html_title = "captum_attattr"
autodoc_typehints = "none"  # the signatures of the docstrings' own words are shorter
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = False
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository, which is where the guide is read too
myst_heading_anchors = 3
