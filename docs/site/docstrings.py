"""The library as the site reads it: sections of examples, and Linen's dataclasses."""

import re
from typing import Any

import griffe


class AsWeWriteIt(griffe.Extension):
    """Tells griffe what it cannot see in the source."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """`Example:` heads a section of code that runs."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub("^Example:$", "Examples:", text, flags=re.M)

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Linen makes a dataclass of every module, without a decorator."""
        if cls.module.path.endswith(".linen"):
            module = griffe.ExprName("dataclasses", cls.module)
            made = griffe.ExprAttribute([module, griffe.ExprName("dataclass", module)])
            cls.decorators.append(griffe.Decorator(made, lineno=None, endlineno=None))
