"""The service of tongues.wit, in Python."""

from typing import List, Optional, Tuple

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import tongue
from wit_world.exports.tongue import (
    Person,
    Refusal,
    Rights,
    Shape,
    Shape_Circle,
    Shape_Square,
)


class Tongue(exports.Tongue):
    def greet(self, who: Person) -> str:
        return f"hello, {who.name} ({who.age}), also known as {', '.join(who.nicknames)}"

    def echo(self, payload: bytes) -> bytes:
        return payload

    def scale(self, it: Shape, by: float) -> Shape:
        if isinstance(it, Shape_Circle):
            return Shape_Circle(it.value * by)
        if isinstance(it, Shape_Square):
            return Shape_Square(int(it.value * by))
        return it

    def divide(self, a: int, b: int) -> int:
        if b == 0:
            raise Err(Refusal.BY_ZERO)
        if a == -(2**63) and b == -1:
            raise Err(Refusal.TOO_LARGE)
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient

    def reverse(self, people: List[Person], note: Optional[str]) -> List[Person]:
        if note is not None:
            for person in people:
                person.nicknames.append(note)
        return people[::-1]

    def missing(self, has: Rights) -> Rights:
        return ~has & (Rights.READ | Rights.WRITE | Rights.EXECUTE)

    def swap(self, a: str, b: str) -> Tuple[str, str]:
        return b, a
