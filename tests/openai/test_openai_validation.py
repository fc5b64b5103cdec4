"""Does an answer fit a schema: as the standard has it, within bounds, and told so that a model can mend it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openai_talk import chat, says, schema_format

from proxy.dialects.openai.schemas import Budget, written_out
from proxy.dialects.openai.validation import MAX_FAULT, MAX_STEPS, fault

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "schema", "told"),
    [
        ({"name": "Ann", "age": 30}, PERSON, ""),
        ({"name": "Ann", "age": 30.0}, PERSON, ""),
        ({"name": "Ann"}, PERSON, '$: lacks ["age"]'),
        ({"name": "Ann", "age": "30"}, PERSON, '$.age: must be of the type "integer"'),
        ({"name": "Ann", "age": True}, PERSON, '$.age: must be of the type "integer"'),
        ({"name": "Ann", "age": -1}, PERSON, "$.age: must not be below 0"),
        ({"name": "Ann", "age": 30, "x": 1}, PERSON, "$.x: must not be there"),
        ([{"name": 5}], {"items": PERSON}, '$[0].name: must be of the type "string"'),
        ("b", {"enum": ["a", 1]}, '$: must be one of ["a", 1]'),
        (1, {"enum": [True]}, "$: must be one of [true]"),
        ({"a": [1.0]}, {"const": {"a": [1]}}, ""),
        ("да", {"minLength": 3}, "$: must have at least 3 characters"),
        ([1, 1.0], {"uniqueItems": True}, "$: must not repeat an item"),
        (7, {"multipleOf": 2}, "$: must be a multiple of 2"),
        (0.3, {"multipleOf": 0.1}, ""),
        (10**400, {"multipleOf": 0.5}, "$: must be a multiple of 0.5"),
        (float("inf"), {"type": "integer"}, '$: must be of the type "integer"'),
        (None, {"anyOf": [PERSON, {"type": "null"}]}, ""),
        ({"name": "Ann", "age": "x"}, {"anyOf": [{"type": "null"}, PERSON]}, '$.age: must be of the type "integer"'),
        (5, {"oneOf": [{"type": "integer"}, {"minimum": 3}]}, "$: must fit one alternative, and fits several"),
        (5, {"not": {"type": "integer"}}, "$: must not be of this form"),
        ([1], {"contains": {"type": "string"}}, "$: must have an item of another form"),
        (5, {"if": {"minimum": 3}, "then": {"maximum": 4}}, "$: must not be above 4"),
        (5, {"const": 6}, "$: must be 6"),
        (5, False, "$: must not be there"),
        (5, True, ""),
    ],
)
def test_a_fault_is_told_with_its_place(value, schema, told):
    assert fault(value, schema) == told


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 40 + "!"),
        ({"patternProperties": {"^(a+)+$": {"type": "string"}}, "additionalProperties": False}, {"a" * 40 + "!": 5}),
        ({"propertyNames": {"pattern": "^(a+)+$"}}, {"a" * 40 + "!": 5}),
    ],
)
def test_an_expression_of_the_callers_is_not_run(schema, value):
    """These would take hours; what only they could tell is not asked."""
    assert fault(value, written_out(schema, "x", Budget())) == ""
    wrapped = {"type": "object", "properties": {"a": schema}}
    chat(response_format=schema_format(wrapped, strict=True)).completion([[says('{"a": {}}')]])


ALTERNATIVES = {"anyOf": [{"type": "string"}] * 5000}
DEEP = {"x": {}}
for _ in range(60):
    DEEP = {"x": DEEP}
NESTED = {"oneOf": [{"properties": {"x": {}}, "required": ["y"]}] * 2}
for _ in range(60):
    NESTED = {"oneOf": [{"properties": {"x": NESTED}, "required": ["y"]}] * 2}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": ALTERNATIVES}, [1] * 10_000),
        ({"items": {"enum": [str(number) for number in range(20_000)]}}, [1] * 10_000),
        ({"items": {"required": [str(number) for number in range(20_000)]}}, [{}] * 10_000),
        ({"items": {"const": list(range(10_000))}}, [[*range(9_999), 0]] * 100),
        ({"uniqueItems": True}, list(range(10_000))),
        ({"propertyNames": ALTERNATIVES}, {str(number): 1 for number in range(10_000)}),
        (NESTED, DEEP),
    ],
)
def test_no_schema_and_no_value_keep_the_check_busy(schema, value):
    """A caller writes the one and dictates the other; the suite would hang otherwise."""
    assert isinstance(fault(value, schema), str)


def test_an_honest_answer_is_far_from_the_limit():
    """A hundred kilobytes of people."""
    people = [{"name": "Ann" * 5, "age": number} for number in range(3_000)]
    assert fault(people, {"type": "array", "items": PERSON}) == ""
    assert len(people) * 10 < MAX_STEPS


def test_a_fault_is_short_whatever_the_schema_and_the_answer_are():
    assert len(fault({"x" * 10_000: 5}, {"additionalProperties": {"enum": ["y" * 10_000]}})) <= MAX_FAULT


def test_a_value_nested_too_deep_is_a_fault():
    value = []
    for _ in range(5_000):
        value = [value]
    assert fault(value, {"const": value}) == "it is nested too deeply to be checked"


# ---- A second opinion ----

small = st.integers(-3, 3)
counts = st.integers(0, 2)
names = st.sampled_from("abc")
scalars = st.none() | st.booleans() | small | st.sampled_from([0.5, 1.0, -2.0]) | st.text("ab", max_size=3)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=8)
types = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])


def grown(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    keywords = {
        "type": types | st.lists(types, min_size=1, max_size=3),
        "enum": st.lists(values, min_size=1, max_size=3),
        "const": values,
        "minimum": small,
        "maximum": small,
        "exclusiveMinimum": small,
        "exclusiveMaximum": small,
        "multipleOf": st.integers(1, 3),
        "minLength": counts,
        "maxLength": counts,
        "minItems": counts,
        "maxItems": counts,
        "minProperties": counts,
        "maxProperties": counts,
        "uniqueItems": st.booleans(),
        "required": st.lists(names, max_size=2),
        "properties": st.dictionaries(names, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "dependentSchemas": st.dictionaries(names, inner, max_size=1),
        "items": inner,
        "prefixItems": several,
        "contains": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
    }
    return st.lists(st.sampled_from(sorted(keywords)), max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: keywords[name] for name in chosen})
    )


schemas = st.recursive(st.booleans() | st.builds(lambda kind: {"type": kind}, types), grown, max_leaves=6)


@given(schemas, values)
def test_a_library_says_the_same(schema, value):
    """Of every keyword that is checked here, in any company."""
    assert (fault(value, schema) == "") == Draft202012Validator(schema).is_valid(value)
