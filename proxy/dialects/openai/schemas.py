"""JSON schemas, written out in full: what `$ref` points to is put in its place.

What refers to itself is cut where it does, and there may be anything. So is what would grow too large or too deep, for
a schema of some lines can stand for millions of parts. Only keywords that say something about a value remain, and of
those only what has a right shape, so that whoever reads the result need not look twice.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote

from proxy.errors import BadRequest

Schema = dict[str, Any]

#: Subschemas that one request may have, and how many may be reached before no reference is followed any more.
MAX_NODES: Final = 20_000
MAX_INLINED: Final = 5_000
#: Levels of nesting, and how deep references are followed.
MAX_DEPTH: Final = 64
MAX_FOLLOWED: Final = 32

TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")


def is_schema(value: object) -> bool:
    return isinstance(value, dict | bool)


def is_type(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_schemas(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_schema, value))


def is_table(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_schema, value.values()))


def is_anything(value: object) -> bool:
    return True


#: Keywords that mean something when they are null.
NULLABLE: Final = ("const", "default")
#: Keywords that ask nothing of a value.
WORDS: Final = {"title", "description", "default", "examples"}
#: Keywords that hold one schema, a list of them, or a table of them by name.
ONE: Final = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED: Final = ("dependentSchemas", "patternProperties", "properties")
#: All keywords that remain, and what each may be.
KEYWORDS: Final[dict[str, Callable[[object], bool]]] = {
    **dict.fromkeys(ONE, is_schema),
    **dict.fromkeys(SEVERAL, is_schemas),
    **dict.fromkeys(NAMED, is_table),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), is_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), is_count),
    **dict.fromkeys(("title", "description", "format", "pattern"), is_text),
    **dict.fromkeys(NULLABLE, is_anything),
    "type": is_type,
    "enum": lambda value: isinstance(value, list) and bool(value),
    "examples": lambda value: isinstance(value, list),
    "multipleOf": lambda value: is_number(value) and value > 0,  # type: ignore[operator]
    "required": is_texts,
    "uniqueItems": lambda value: isinstance(value, bool),
}


class Budget:
    """How many subschemas a request may still have."""

    def __init__(self) -> None:
        self.spent = 0

    def spend(self, path: str) -> None:
        """Raises BadRequest when there are too many."""
        self.spent += 1
        if self.spent > MAX_NODES:
            raise BadRequest(f'"{path}" is too large: schemas may have {MAX_NODES:,} parts together', param=path)

    @property
    def is_low(self) -> bool:
        return self.spent > MAX_INLINED


def written_out(root: Schema, path: str, budget: Budget, *, is_strict: bool = False) -> Schema:
    """The schema without references. Raises BadRequest for one that points nowhere, and for a schema too large.

    Args:
        path: of the field that holds it, for errors.
        is_strict: a keyword of a wrong shape is refused too, not left out.
    """
    schema: Schema = Writing(root, path, budget, is_strict).node(root, (), 0)
    return schema


class Writing:
    """One schema on its way to being written out."""

    def __init__(self, root: Schema, path: str, budget: Budget, is_strict: bool) -> None:
        self._root = root
        self._path = path
        self._budget = budget
        self._is_strict = is_strict

    def node(self, node: Any, above: tuple[str, ...], depth: int) -> Any:
        """A subschema. `above` are the references that led to it."""
        self._budget.spend(self._path)
        if depth > MAX_DEPTH:
            raise BadRequest(f'"{self._path}" is nested deeper than {MAX_DEPTH} levels', param=self._path)
        if isinstance(node, bool):
            return node
        if isinstance(node.get("$ref"), str):
            return self._followed(node, above, depth)
        return {name: self._part(name, value, above, depth + 1) for name, value in self._kept(node)}

    def _followed(self, node: Schema, above: tuple[str, ...], depth: int) -> Any:
        reference = node["$ref"]
        beside = {name: value for name, value in node.items() if name != "$ref"}
        told = self.node(beside, above, depth)
        target = self._target(reference)  # also of what is cut, so that what points nowhere is told
        if reference in above or depth > MAX_FOLLOWED or self._budget.is_low:
            return told
        found = self.node(target, (*above, reference), depth + 1)
        if isinstance(found, bool):
            return found and told
        # What stands beside it only adds to it, or describes it: both hold.
        clashes = (found.keys() & told.keys()) - WORDS
        return {"allOf": [found, told]} if clashes else {**found, **told}

    def _kept(self, node: Schema) -> Iterator[tuple[str, Any]]:
        """The keywords that say something."""
        for name, value in node.items():
            if name not in KEYWORDS or (value is None and name not in NULLABLE):
                continue
            if name == "items" and isinstance(value, list):
                yield from self._kept({"prefixItems": value})  # as it is called since 2020
            elif KEYWORDS[name](value):
                yield name, value
            elif self._is_strict:
                raise BadRequest(f'"{self._path}" has a wrong "{name}"', param=self._path)

    def _part(self, name: str, value: Any, above: tuple[str, ...], depth: int) -> Any:
        if name in ONE:
            return self.node(value, above, depth)
        if name in SEVERAL:
            return [self.node(each, above, depth) for each in value]
        if name in NAMED:
            return {key: self.node(each, above, depth) for key, each in value.items()}
        return value

    def _target(self, reference: str) -> Any:
        """What a local reference such as `#/$defs/City` points to."""
        node: Any = self._root
        head, _, pointer = reference.partition("#")
        for step in unquote(pointer).split("/")[1:]:
            node = inside(node, step.replace("~1", "/").replace("~0", "~"))
        if head or (pointer and not pointer.startswith("/")) or not is_schema(node):
            raise BadRequest(
                f'"{self._path}" has a $ref "{reference[:100]}" that points nowhere in it', param=self._path
            )
        return node


def inside(node: Any, step: str) -> Any:
    """What a step of a pointer leads to; None if nowhere."""
    if isinstance(node, list):
        return node[int(step)] if step.isdecimal() and len(step) < 7 and int(step) < len(node) else None
    return node.get(step) if isinstance(node, dict) else None
