"""JSON schemas: written out whatever they refer to, and as plain as GigaChat's functions need them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_talk import asked, body, chat, check_parameters, tool

from proxy.dialects.openai import Chat, Options, plain, validation
from proxy.dialects.openai.schemas import MAX_INLINED, MAX_NODES, Budget, written_out
from proxy.errors import BadRequest

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def out(schema, **more):
    return written_out(schema, "schema", Budget(), **more)


def plainly(schema):
    """As a property of a function's parameters."""
    return plain.parameters(out({"type": "object", "properties": {"p": schema}}))["properties"]["p"]


def size(schema):
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    return 1 + sum(map(size, parts))


# ---- Written out ----


@pytest.mark.parametrize("place", ["$defs", "definitions", "components"])
def test_what_is_referred_to_takes_the_references_place(place):
    schema = {"type": "object", "properties": {"a": {"$ref": f"#/{place}/City"}}, place: {"City": CITY}}
    assert out(schema) == {"type": "object", "properties": {"a": CITY}}


def test_a_root_may_be_a_reference():
    assert out({"$ref": "#/$defs/City", "$defs": {"City": CITY}}) == CITY


def test_a_reference_may_name_anything_in_the_schema():
    """By the steps to it, with what must be escaped there."""
    schema = {
        "properties": {"a/b ~c": {"type": "integer"}, "x": {"$ref": "#/properties/a~1b%20~0c"}},
        "anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}],
    }
    found = out(schema)
    assert found["properties"]["x"] == {"type": "integer"}
    assert found["anyOf"] == [{"type": "string"}, {"type": "string"}]


def test_words_beside_a_reference_replace_its_own():
    schema = {"properties": {"a": {"$ref": "#/$defs/A", "description": "new"}}, "$defs": {"A": {"description": "old"}}}
    assert out(schema)["properties"]["a"] == {"description": "new"}


def test_a_demand_beside_a_reference_adds_to_its_own():
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A", "type": "string"}},
        "$defs": {"A": {"type": ["string", "null"]}},
    }
    assert out(schema)["properties"]["a"] == {"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}


@pytest.mark.parametrize(("target", "expected"), [(True, {"description": "d"}), (False, False)])
def test_a_reference_may_lead_to_all_or_nothing(target, expected):
    schema = {"properties": {"a": {"$ref": "#/$defs/A", "description": "d"}}, "$defs": {"A": target}}
    assert out(schema)["properties"]["a"] == expected


def test_what_refers_to_itself_is_cut_there():
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    once = {"type": "object", "properties": {"children": {"type": "array", "items": {}}}}
    assert out(tree) == {"type": "object", "properties": {"children": {"type": "array", "items": once}}}


def test_a_long_chain_of_references_is_followed_a_good_way():
    """And no error: it is not the caller who nests so deep."""
    links = {str(number): obj(next={"$ref": f"#/$defs/{number + 1}"}) for number in range(100)}
    found = out({"$ref": "#/$defs/0", "$defs": links | {"100": STRING}})
    for _ in range(10):
        found = found["properties"]["next"]
    assert found["type"] == "object"


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}]}, {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}]
)
def test_a_reference_that_leads_nowhere_else_than_back_ends(schema):
    out(schema)


def test_two_that_refer_to_each_other_end():
    schema = {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"items": {"$ref": "#/$defs/B"}}, "B": {"items": {"$ref": "#/$defs/A"}}},
    }
    assert out(schema) == {"items": {"items": {}}}


def test_some_lines_cannot_become_millions():
    """Each name stands for ten of the next: what is beyond the limit may be anything."""
    laughs = {f"L{level}": {"anyOf": [{"$ref": f"#/$defs/L{level + 1}"}] * 10} for level in range(30)}
    found = out({"$ref": "#/$defs/L0", "$defs": laughs | {"L30": {"type": "string"}}})
    assert size(found) < 10 * MAX_INLINED


def test_many_types_that_all_refer_to_each_other_are_written_out_as_far_as_it_goes():
    """As in real tools that describe a page of blocks."""
    names = [f"#/$defs/{number}" for number in range(20)]
    blocks = {
        str(number): {"type": "object", "properties": {name[-2:]: {"$ref": name} for name in names}}
        for number in range(20)
    }
    found = asked(tools=[tool("f", {"$ref": "#/$defs/0", "$defs": blocks})])["functions"][0]["parameters"]
    check_parameters(found)
    assert size(found) < 20 * MAX_INLINED


@pytest.mark.parametrize(
    "reference",
    [
        "#/$defs/Other",
        "#City",
        "#/type",
        "http://example.com/schema.json",
        "other.json#/A",
        "#/anyOf/7",
        "#/anyOf/x",
        "#/anyOf/²",
    ],
)
def test_a_reference_to_nothing_here_is_refused(reference):
    """Nothing is fetched from anywhere."""
    with pytest.raises(BadRequest) as refused:
        out({"type": "object", "properties": {"a": {"$ref": reference}}, "anyOf": [{}]})
    assert refused.value.param == "schema"


def test_a_property_may_have_any_name():
    """Of a keyword too."""
    names = ["$ref", "type", "properties", "required", "$defs", "pattern", "anyOf", "enum"]
    properties = {name: {"type": "string"} for name in names}
    assert out({"type": "object", "properties": properties})["properties"] == properties


def test_keywords_that_say_nothing_of_a_value_go():
    schema = {"$schema": "x", "$id": "y", "$comment": "z", "x-order": 1, "type": "string", "readOnly": True}
    assert out(schema) == {"type": "string"}


def test_items_in_a_row_are_understood_as_they_were_written_before_2020():
    assert out({"items": [{"type": "string"}, {}]}) == {"prefixItems": [{"type": "string"}, {}]}


WRONG = [
    {"type": 5},
    {"type": "any"},
    {"type": []},
    {"properties": []},
    {"properties": {"a": 5}},
    {"required": "a"},
    {"required": [1]},
    {"items": 5},
    {"anyOf": {}},
    {"anyOf": []},
    {"anyOf": [5]},
    {"enum": "a"},
    {"enum": []},
    {"minimum": "1"},
    {"exclusiveMinimum": True},
    {"minLength": -1},
    {"multipleOf": 0},
    {"description": 5},
    {"pattern": 5},
    {"additionalProperties": "no"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_keyword_of_a_wrong_shape_is_refused_where_answers_are_checked_by_it(wrong):
    with pytest.raises(BadRequest):
        out(wrong, is_strict=True)
    with pytest.raises(BadRequest):
        out({"properties": {"a": wrong}}, is_strict=True)


@pytest.mark.parametrize("wrong", [*WRONG, {"properties": None}, {"required": None}, {"enum": None}])
def test_a_tool_with_such_a_keyword_works_without_it(wrong):
    """Tools out of other people's hands have them."""
    for schema in (wrong, {"type": "object", "properties": {"a": wrong}}):
        check_parameters(asked(tools=[tool("f", schema)])["functions"][0]["parameters"])


@pytest.mark.parametrize("depth", [65, 500])
def test_a_schema_may_be_nested_so_deep_and_no_deeper(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    with pytest.raises(BadRequest) as refused:
        Chat(body(tools=[tool("f", obj(a=schema))]), Options(), id="x", created=1)
    assert refused.value.param == "tools[0].function.parameters"


def test_all_schemas_of_a_request_together_may_have_so_many_parts():
    half = {"type": "object", "properties": {f"p{number}": {} for number in range(MAX_NODES // 2)}}
    chat(tools=[tool("f", half)])
    with pytest.raises(BadRequest) as refused:
        chat(tools=[tool("f", half), tool("g", half)])
    assert refused.value.param == "tools[1].function.parameters"


# ---- Plain ----

STRING, NUMBER, NULL = {"type": "string"}, {"type": "number"}, {"type": "null"}


def obj(*required, **properties):
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def array(items):
    return {"type": "array", "items": items}


LIMITED = {"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "default": 3, "description": "n"}
CAT = obj("kind", "lives", kind={"const": "cat"}, lives={"type": "integer"})
DOG = obj("kind", kind={"const": "dog"}, tail={"type": "boolean"})
PET = obj("kind", kind=STRING | {"enum": ["cat", "dog"]}, lives={"type": "integer"}, tail={"type": "boolean"})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (LIMITED, LIMITED),
        ({"type": "string", "minLength": 1, "pattern": "^a"}, {"type": "string", "minLength": 1, "pattern": "^a"}),
        ({"type": "string", "default": None}, STRING),
        ({"type": "string", "title": "T", "examples": ["a"]}, STRING),
        # types
        ({"type": ["string", "null"]}, STRING),
        ({"type": ["null", "integer", "string"]}, {"type": "integer"}),
        (NULL, STRING),
        ({}, STRING),
        (True, STRING),
        (False, STRING),
        ({"description": "The city"}, {"type": "string", "description": "The city"}),
        ({"properties": {"a": {}}}, obj(a=STRING)),
        ({"additionalProperties": {"type": "string"}}, obj()),
        ({"items": NUMBER}, array(NUMBER)),
        ({"minimum": 3}, {"type": "number", "minimum": 3}),
        # objects and arrays
        ({"type": "object"}, obj()),
        ({"type": "array"}, array(STRING)),
        (array(True), array(STRING)),
        (array([NUMBER, {}]), array(NUMBER)),
        (CITY, CITY),
        (array(CITY), array(CITY)),
        (obj("a", "b", a={}), obj("a", a=STRING)),
        ({**obj(), "required": []}, obj()),
        ({**obj(a=CITY), "additionalProperties": False}, obj(a=CITY)),
        # values
        ({"type": "string", "enum": ["a", "b", "a"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"enum": ["a", None]}, {"type": "string", "enum": ["a"]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"enum": [1, 2], "description": "n"}, {"type": "integer", "description": "n One of: 1, 2."}),
        ({"enum": [1, 2]}, {"type": "integer", "description": "One of: 1, 2."}),
        ({"enum": [1, "a"]}, {"type": "integer", "description": 'One of: 1, "a".'}),
        ({"const": True}, {"type": "boolean", "description": "One of: true."}),
        ({"const": None}, STRING),
        # formats
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "email"}, STRING),
        # alternatives
        ({"anyOf": [STRING, NULL]}, STRING),
        ({"anyOf": [NULL, NUMBER], "description": "n"}, {"type": "number", "description": "n"}),
        ({"anyOf": [STRING, NUMBER]}, STRING),
        ({"oneOf": [NULL]}, STRING),
        ({"anyOf": [{"const": "a"}, {"enum": ["b", "c"]}]}, {"type": "string", "enum": ["a", "b", "c"]}),
        ({"anyOf": [CITY, NULL]}, CITY),
        ({"allOf": [CITY], "description": "d"}, {**CITY, "description": "d"}),
        ({"allOf": [CITY, obj("zip", zip=STRING)]}, obj("name", "zip", name=STRING, zip=STRING)),
        ({"oneOf": [CAT, DOG]}, PET),
    ],
)
def test_a_property_is_as_plain_as_gigachat_needs_it(schema, expected):
    """Its type is said, alternatives are chosen, and what informs the model stays."""
    assert plainly(schema) == expected


def test_what_is_required_deep_inside_stays_required():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "object", "properties": {"b": CITY}, "required": ["b"]}}
        },
    }
    assert plain.parameters(out(schema)) == schema


leaves = st.sampled_from([{}, True, False, STRING, {"type": ["integer", "null"]}, {"enum": [1, "a"]}, {"$ref": "#"}])


def grown(inner):
    names = st.sampled_from(["anyOf", "oneOf", "allOf"])
    return st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner).map(lambda parts: obj(*parts, "z", **parts)),
        inner.map(lambda part: {"items": part}),
        st.builds(lambda name, parts: {name: parts}, names, st.lists(inner, min_size=1, max_size=3)),
    )


schemas = st.recursive(leaves, grown, max_leaves=12).map(lambda schema: {"type": "object", "properties": {"a": schema}})
values = st.recursive(st.none() | st.integers() | st.text(max_size=2), lambda inner: st.lists(inner, max_size=2))


@given(schemas)
def test_any_schema_becomes_one_that_gigachat_takes(schema):
    check_parameters(plain.parameters(out(schema)))


@given(schemas, values)
def test_any_schema_can_be_checked_against(schema, value):
    assert isinstance(validation.fault({"a": value}, out(schema, is_strict=True)), str)
