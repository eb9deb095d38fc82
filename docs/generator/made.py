"""An extension of griffe, which reads the API from the text of modules: it sees functions made by an import, too."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe

MODULES = ("boxes.similarity",)  # in the package


class Made(griffe.Extension):
    """Adds what an import makes."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for path in MODULES:
            module = pkg[path]
            live = import_module(module.path)
            found = griffe.inspect(module.name, filepath=Path(str(module.filepath)), parent=module.parent)
            for name, member in found.members.items():
                if isinstance(member, griffe.Function) and name not in module.members:
                    member.docstring = griffe.Docstring(inspect.getdoc(getattr(live, name)) or "", parent=member)
                    module.set_member(name, member)
