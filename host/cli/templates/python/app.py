"""Greets people. The interface is in wit/{{name}}.wit."""

import componentize_py_types as types
from wit_world import exports
from wit_world.exports import {{module}} as interface


class {{Class}}(exports.{{Class}}):
    def greet(self, name: str) -> str:
        if not name:
            raise types.Err(interface.Refusal.NAMELESS)
        return f"Hello, {name}!"
