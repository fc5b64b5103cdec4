"""LiteLLM's SDK, by its providers for OpenAI and for GigaChat. Each function is a promise; the address is ours."""

import os

import litellm
from pydantic import BaseModel

SUM, TOTAL = [{"role": "user", "content": "Сколько будет 2 + 3?"}], "2 + 3 = 5"
WEATHER = {"role": "user", "content": "Какая погода в Москве?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Погода в городе",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Sum(BaseModel):
    result: int


def openai(url: str, model: str = "gpt-4o") -> dict[str, str]:
    return {"api_base": f"{url}/v1", "api_key": "any", "model": f"openai/{model}"}


def gigachat(url: str, model: str = "GigaChat-2") -> dict[str, str]:
    os.environ["GIGACHAT_AUTH_URL"] = f"{url}/api/v2/oauth"
    return {"api_base": f"{url}/api/v1", "api_key": "any", "model": f"gigachat/{model}"}


def text_of(stream: litellm.CustomStreamWrapper) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def a_chat_and_a_stream_are_answered(url: str) -> None:
    answer = litellm.completion(messages=SUM, **openai(url))
    assert answer.choices[0].message.content == TOTAL and answer.usage.total_tokens == 16
    stream = litellm.completion(messages=SUM, stream=True, stream_options={"include_usage": True}, **openai(url))
    chunks = list(stream)
    assert text_of(chunks) == TOTAL and chunks[-1].usage.total_tokens == 16


def a_tool_makes_a_whole_round(url: str) -> None:
    """The model asks for it, in a stream as well, and tells its result."""
    asked = litellm.completion(messages=[WEATHER], tools=TOOLS, **openai(url)).choices[0]
    (call,) = asked.message.tool_calls
    assert asked.finish_reason == "tool_calls" and call.function.arguments == '{"city":"Москве"}'
    result = {"role": "tool", "tool_call_id": call.id, "content": "тепло"}
    told = litellm.completion(messages=[WEATHER, asked.message, result], tools=TOOLS, **openai(url))
    assert told.choices[0].message.content == "Функция get_weather вернула: result: тепло."
    chunks = list(litellm.completion(messages=[WEATHER], tools=TOOLS, stream=True, **openai(url)))
    streamed = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert [each.function.arguments for each in streamed] == [call.function.arguments]


def structured_output_and_vectors_are_given(url: str) -> None:
    answer = litellm.completion(messages=SUM, response_format=Sum, **openai(url))
    assert Sum.model_validate_json(answer.choices[0].message.content) == Sum(result=5)
    vectors = litellm.embedding(input=["раз", "два"], **openai(url, "text-embedding-3-small"))
    assert [len(each["embedding"]) for each in vectors.data] == [1024, 1024]


def what_is_wrong_raises_its_own_exception(url: str) -> None:
    try:
        litellm.completion(messages=SUM, temperature=5, **openai(url))
    except litellm.BadRequestError as error:
        assert "temperature must be a number from 0 to 2" in str(error)
    else:
        raise AssertionError("it did not raise")


def its_provider_for_gigachat_is_served_too(url: str) -> None:
    """It takes a token of the service and calls GigaChat's own paths: chat, stream, tools and vectors."""
    assert litellm.completion(messages=SUM, **gigachat(url)).choices[0].message.content == TOTAL
    assert text_of(litellm.completion(messages=SUM, stream=True, **gigachat(url))) == TOTAL
    asked = litellm.completion(messages=[WEATHER], tools=TOOLS, **gigachat(url)).choices[0]
    (call,) = asked.message.tool_calls
    assert asked.finish_reason == "tool_calls" and call.function.name == "get_weather"
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "тепло"}
    told = litellm.completion(messages=[WEATHER, asked.message, result], tools=TOOLS, **gigachat(url))
    assert "тепло" in told.choices[0].message.content
    vectors = litellm.embedding(input=["раз", "два"], **gigachat(url, "Embeddings"))
    assert [len(each["embedding"]) for each in vectors.data] == [1024, 1024]
