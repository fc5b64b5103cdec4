"""Does a value fit a schema? Told in a sentence that a model can mend its answer by.

Rule 1: no expression of a caller's is run (`pattern`, `patternProperties`): some take hours on thirty characters.
Rule 2: nothing is fetched: schemas come written out, without references.
"""

from functools import cache
from typing import Any, Final

from proxy.dialects.openai.schemas import Schema

#: Characters of a fault.
MAX_FAULT: Final = 300


def fault(value: Any, schema: Schema) -> str:
    """What is wrong with the value, and where; nothing if it fits."""
    from jsonschema.exceptions import best_match

    try:
        error = best_match(validator_class()(schema).iter_errors(value))
        return "" if error is None else f"{error.json_path}: {error.message}"[:MAX_FAULT]
    except RecursionError:
        return "it is nested too deeply"


@cache
def validator_class() -> Any:
    """The library's class, with what rule 1 forbids taken out."""
    # Here and not above: it takes 0.1 s and 9 MB, which only those pay who ask for a schema.
    from jsonschema import Draft202012Validator, validators

    others = Draft202012Validator.VALIDATORS["additionalProperties"]

    def unchecked(validator: Any, asked: Any, value: Any, schema: Schema) -> None:
        return None

    def additional(validator: Any, asked: Any, value: Any, schema: Schema) -> Any:
        return None if "patternProperties" in schema else others(validator, asked, value, schema)

    replaced = {"pattern": unchecked, "patternProperties": unchecked, "additionalProperties": additional}
    return validators.extend(Draft202012Validator, replaced)  # type: ignore[no-untyped-call]
