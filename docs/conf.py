"""How the documentation is built: `nox -s docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
# The pages describe the sources that stand beside them, whichever conpool is installed.
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import conpool  # noqa: E402

project = "conpool"
author = "The conpool authors"
project_copyright = "the conpool authors"
release = version = conpool.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx.ext.viewcode",  # a link to the source beside each name
    "sphinx_copybutton",
    "myst_parser",  # for the changelog, which is Markdown
    "bench_tables",
    "house_table",
    "plain_docstrings",
    "state_picture",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"conpool {release}"

# The button copies what one types: no prompt, and none of the lines that a program prints.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

# Every reference must lead somewhere; what is not conpool's is beyond a build without network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!conpool).*")]
if "READTHEDOCS" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }

# `x` in our texts is code, wherever Sphinx meets it.
default_role = "code"
rst_prolog = ".. currentmodule:: conpool"

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_custom_sections = [("Raises, on entering the block", "raises")]
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
