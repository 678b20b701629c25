"""Teach Griffe, which reads the code for the API pages, two habits of this project."""

import ast
import re
from typing import Any

import griffe


class HouseStyle(griffe.Extension):
    """Read ``Example:`` sections as doctests, and ``import X as X`` as "X is public here"."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section: Griffe reads doctests only under ``Examples:``."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE
            )

    def on_alias_instance(self, *, node: ast.AST, alias: griffe.Alias, **_: Any) -> None:
        """Publish a name that a package re-exports."""
        if isinstance(node, ast.ImportFrom):
            alias.public = any(n.name == n.asname == alias.name for n in node.names) or None
