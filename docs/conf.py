"""
How Sphinx builds these pages: "tox run -e docs", without a warning.
"""

from importlib.metadata import version as installed

project = "asgi_sse"
author = copyright = "asgi_sse contributors"
release = version = installed("asgi-sse")

# Each section says which module it is about.
add_module_names = False

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"asgi_sse {release}"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# "Args:" and "Raises:", as the docstrings have them.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
