"""LangChain's class for OpenAI, called by its users' usual words. Each function is a promise; the address is ours."""

import openai
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

SUM, TOTAL = "Сколько будет 2 + 3?", "2 + 3 = 5"
#: JSON mode has no schema that the emulator could fill, so it is told what to say.
DICTATED = 'Скажи: {"result": 5}'
MANY = 20


class Sum(BaseModel):
    """Сумма чисел."""

    result: int


@tool
def weather(city: str) -> dict[str, str]:
    """Погода в городе."""
    return {"city": city, "temperature": "+7"}


def chat(url: str, **more: object) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=f"{url}/v1", api_key="any", **more)


def a_chat_and_a_stream_come_with_their_usage(url: str) -> None:
    answer = chat(url).invoke(SUM)
    assert answer.text == TOTAL
    assert answer.usage_metadata["total_tokens"] == 16
    assert answer.response_metadata["finish_reason"] == "stop"
    chunks = list(chat(url, stream_usage=True).stream("Скажи: раз, два, три"))
    assert [chunk.text for chunk in chunks if chunk.text] == ["раз, ", "два, ", "три"]
    assert [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata] == [5]


def a_tool_makes_a_whole_round(url: str) -> None:
    """The model asks for it, it is called, its result is told; streamed as well."""
    model = chat(url).bind_tools([weather])
    messages: list[AnyMessage] = [HumanMessage("Какая погода в Москве?")]
    asked = model.invoke(messages)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Москве"})
    messages += [asked, weather.invoke(call)]
    assert model.invoke(messages).text == "Функция weather вернула: city: Москве, temperature: +7."
    first, *rest = model.stream(messages[:1])
    assert sum(rest, first).tool_calls == [call]


def a_tool_can_be_demanded(url: str) -> None:
    """Any tool, or one by its name, where nothing in the question asks for it."""
    for choice in ("any", "weather", True):
        answer = chat(url).bind_tools([weather], tool_choice=choice).invoke("Привет")
        assert [call["name"] for call in answer.tool_calls] == ["weather"]


def each_method_of_structured_output_gives_an_object(url: str) -> None:
    for method, question in (("function_calling", SUM), ("json_schema", SUM), ("json_mode", DICTATED)):
        model = chat(url).with_structured_output(Sum, method=method)
        assert model.invoke(question) == Sum(result=5), method
        assert list(model.stream(question))[-1] == Sum(result=5), method


def texts_become_vectors_when_its_tokens_are_switched_off(url: str) -> None:
    """Otherwise it sends numbers of OpenAI's own tokens, which no other model can read."""
    embeddings = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="any", check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(["раз", "два"])
    assert [len(vector) for vector in vectors] == [1024, 1024] and vectors[0] != vectors[1]
    again = embeddings.embed_query("раз")
    assert max(abs(ours - theirs) for ours, theirs in zip(again, vectors[0], strict=True)) < 1e-6


def many_questions_at_once_are_all_answered(url: str) -> None:
    """Though the account allows one call at a time, and the program never asks again."""
    questions = [f"Скажи: {number}" for number in range(MANY)]
    answers = chat(url, max_retries=0).batch(questions, {"max_concurrency": MANY})
    assert [answer.text for answer in answers] == [str(number) for number in range(MANY)]


def what_is_wrong_raises_the_sdks_own_exception(url: str) -> None:
    try:
        chat(url, temperature=5).invoke(SUM)
    except openai.BadRequestError as error:
        assert error.param == "temperature" and "from 0 to 2" in error.message
    else:
        raise AssertionError("it did not raise")
