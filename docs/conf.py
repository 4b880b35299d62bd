"""How Sphinx builds the manual: `make docs`, without a network and without a warning."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # parsers.py
sys.path.insert(0, str(Path(__file__).parents[1]))

import anomalib_medical

project = "anomalib-medical"
author = "The anomalib-medical authors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = anomalib_medical.__version__
html_title = f"{project} {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "parsers"]
exclude_patterns = ["_build", "notebooks"]
html_theme = "furo"
html_theme_options = {
    "source_repository": "https://github.com/anomalib-medical/anomalib-medical/",
    "source_branch": "main",
    "source_directory": "docs/",
}
pygments_style = "friendly"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature says them, and docstrings what they mean
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

nitpicky = True
# Other projects' inventories are on the net, which the build does not ask.
nitpick_ignore_regex = [("py:.*", r"(?!anomalib_medical).*")]
