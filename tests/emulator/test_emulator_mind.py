"""What the emulator says, and how it fills a schema: pure functions, no server."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.arithmetic import solved
from emulator.dialogue import Dialogue, Message
from emulator.filling import filled
from emulator.mind import compose
from emulator.pattern import matching
from emulator.schema import fits
from emulator.words import clauses, count_tokens, first_tokens


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Сколько будет 2+3?", "2+3 = 5"),
        ("2 + 3*4 - 1", "2 + 3*4 - 1 = 13"),
        ("10 / 4", "10 / 4 = 2.5"),
        ("1,5 + 1,5", "1,5 + 1,5 = 3"),
        ("6 × 7", "6 × 7 = 42"),
        ("10 / 0", ""),
        ("в 12:30, 2024-05-06", ""),
        ("+7 (912) 345-67-89", ""),
        ("тройка", ""),
    ],
)
def test_a_sum_is_added_up(question: str, answer: str) -> None:
    assert solved(question) == answer


@pytest.mark.parametrize(
    ("system", "question", "answer"),
    [
        ("", "Привет!", "Вы написали: Привет!"),
        ("", "Hello", "You wrote: Hello"),
        ("", "Ответь одним словом: понг", "понг"),
        ("", 'Say "hi": hello', "hello"),
        ("Ты робот киска, на все вопросы отвечай мяу-мяу", "Привет, как дела?", "мяу-мяу"),
        ("Always answer: meow", "How are you?", "meow"),
        ("Отвечай коротко", "Сколько будет 1+1?", "1+1 = 2"),
    ],
)
def test_the_answer_comes_from_the_prompt(system: str, question: str, answer: str) -> None:
    messages = [Message("system", system)] if system else []
    dialogue = Dialogue(model="GigaChat-2", messages=[*messages, Message("user", question)])
    assert compose(dialogue).text == answer


def test_a_result_of_any_shape_is_told_in_words() -> None:
    results = [("f", {"list": [1, "два"], "ok": True, "none": None})]
    dialogue = Dialogue(model="m", messages=[Message("user", "What?"), Message("function", results=results)])
    assert compose(dialogue).text == "f returned: list: 1; два, ok: true, none: null."


def test_a_long_question_is_not_repeated_whole() -> None:
    dialogue = Dialogue(model="m", messages=[Message("user", "a" * 5000)])
    assert len(compose(dialogue).text) < 1100


def test_a_schema_after_a_function_is_filled_from_its_result() -> None:
    messages = [Message("user", "Погода?"), Message("function", results=[("get_weather", {"temperature": -7})])]
    reply = compose(Dialogue(model="m", messages=messages, schema=fields(temperature=INTEGER)))
    assert reply.text == '{"temperature":-7}'


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (fields(name=STRING, age=INTEGER), 'Вот: {"name": "Иван", "age": 30}', {"name": "Иван", "age": 30}),
        (fields(name=STRING), 'Вот: {"user": {"name": "Иван"}}', {"name": "Иван"}),
        (fields(city=STRING, days=INTEGER), "Погода в Москве на 3 дня", {"city": "Москве", "days": 3}),
        (fields(city=STRING), "city: Saint Petersburg, please", {"city": "Saint Petersburg"}),
        (fields(title=STRING), "Прочти «Война и мир»", {"title": "Война и мир"}),
        (fields(a=INTEGER, b=INTEGER), "Сложи 7 и 8", {"a": 7, "b": 8}),
        (fields(price={"type": "number"}), "Стоит 9,90 рубля", {"price": 9.9}),
        (fields(unit={"enum": ["c", "fahrenheit"]}), "in Fahrenheit", {"unit": "fahrenheit"}),
        (fields(ok={"type": "boolean"}), "ok: yes", {"ok": True}),
        (fields(mail={"type": "string", "format": "email"}), "пиши на a@b.ru", {"mail": "a@b.ru"}),
        (fields(day={"type": "string", "format": "date"}), "к 2026-05-06.", {"day": "2026-05-06"}),
        (fields(fruits={"type": "array", "items": STRING}), "Вот: яблоко, груша и слива", None),
        ({"type": "array", "items": INTEGER}, "числа 3, 1 и 2", [3, 1, 2]),
        (fields(x={"anyOf": [{"type": "null"}, INTEGER]}), "8", {"x": 8}),
        ({"$ref": "#/$defs/N", "$defs": {"N": fields(n=INTEGER)}}, "5", {"n": 5}),
        ({"allOf": [fields(a=INTEGER), fields(b=INTEGER)]}, "1 и 2", {"a": 1, "b": 2}),
        ({"type": "object", "properties": {"a": INTEGER, "b": STRING}, "required": ["a"]}, "4", {"a": 4}),
        (fields(kind={"const": "cat"}), "", {"kind": "cat"}),
        (fields(name=STRING), '{not json} {"name": "Иван"}', {"name": "Иван"}),
        (fields(n=INTEGER), "", {"n": 0}),
        (fields(n={"type": "integer", "minimum": 10, "multipleOf": 4}), "", {"n": 12}),
        (fields(n={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}), "", {"n": 0.5}),
        (fields(n={"type": ["null", "integer"]}), "7", {"n": 7}),
        (fields(code={"type": "string", "pattern": r"\d{2}-\d{2}"}), "код 12-34", {"code": "12-34"}),
        (fields(word={"type": "string", "pattern": r"\p{L}"}), "да", {"word": "да"}),
        (fields(total=INTEGER), "Сколько будет 2+2?", {"total": 4}),
        (fields(list={"type": "array", "items": INTEGER}), "вот [5, 6]", {"list": [5, 6]}),
        (fields(any={}), "что угодно", {"any": "что угодно"}),
    ],
)
def test_a_schema_is_filled_from_the_text(schema: Any, text: str, value: Any) -> None:
    filling = filled(schema, text)
    assert fits(schema, filling, schema)
    assert filling == ({"fruits": ["яблоко", "груша", "слива"]} if value is None else value)


small, any_number = st.integers(0, 9), st.integers(-99, 99)
FORMATS = ["email", "date", "date-time", "uuid", "uri"]


def between(kind: str, low: str, high: str, least: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """A type with a lower and an upper limit."""
    return st.builds(lambda start, size: {"type": kind, low: start, high: start + size}, least, small)


scalars = st.one_of(
    st.sampled_from(["string", "boolean", "null"]).map(lambda kind: {"type": kind}),
    between("integer", "minimum", "maximum", any_number),
    between("string", "minLength", "maxLength", small),
    any_number.map(lambda low: {"type": "number", "exclusiveMinimum": low}),
    st.lists(any_number | st.text(max_size=5), min_size=1, max_size=3).map(lambda options: {"enum": options}),
    st.sampled_from(FORMATS).map(lambda shape: {"type": "string", "format": shape}),
)
names = st.sampled_from(["city", "name", "result", "count", "items"])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = st.builds(
        lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)
    )
    objects = st.dictionaries(names, inner, max_size=3).map(lambda parts: fields(**parts))
    return arrays | objects | st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"anyOf": parts})


@given(st.recursive(scalars, nested, max_leaves=8), st.text(max_size=60))
def test_whatever_the_schema_and_the_text_the_filling_fits(schema: Any, text: str) -> None:
    value = filled(schema, text)
    assert fits(schema, value, schema)
    assert json.loads(json.dumps(value)) == value


def test_a_schema_that_needs_itself_comes_to_an_end() -> None:
    schema = {"$ref": "#/$defs/T", "$defs": {"T": fields(children={"type": "array", "items": {"$ref": "#/$defs/T"}})}}
    assert fits(schema, filled(schema, "дерево"), schema)


PATTERNS = [
    r"\d{3}-\d{2}",
    r"^(да|нет)$",
    r"[A-Z]{2}\d+",
    r"(a|b)\1x?",
    r"[^a]z",
    r"\w+@\w+\.ru",
    r"(?:ab){2,3}",
    r"\s\S.",
    r"я*б",
    r"[а-я]+",
    r"[^a]",
    r"[^\s\w]",
    r"(?>ab)(?=c)?",
    r".\bx??",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_text_is_made_for_a_pattern(pattern: str) -> None:
    assert re.fullmatch(pattern, matching(pattern, ""))


def test_a_piece_of_the_prompt_is_preferred() -> None:
    assert matching(r"\d{3}", "номер 123") == "123"


def test_a_broken_pattern_is_no_harm() -> None:
    assert matching("(", "текст") == "текст"


@given(st.text(max_size=300))
def test_clauses_joined_are_the_text(text: str) -> None:
    assert "".join(clauses(text)) == text


@given(st.text(max_size=100), st.integers(0, 20))
def test_no_more_tokens_are_left_than_asked_for(text: str, limit: int) -> None:
    assert count_tokens(first_tokens(text, limit)) <= limit


def test_tokens_are_counted_about_as_the_real_one_does() -> None:
    assert count_tokens("Hello, world!") == 4
