"""Greets people. The interface is in wit/{{name}}.wit."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.{{module}} import Refusal


class {{Class}}(exports.{{Class}}):
    def greet(self, name: str) -> str:
        if not name:
            raise Err(Refusal.NAMELESS)
        return f"Hello, {name}!"
