"""pydantic-ai's agents. Each function is a promise; the address is ours."""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

SUM, TOTAL = "Сколько будет 2 + 3?", "2 + 3 = 5"
#: A schema in words is nothing that the emulator could fill, so it is told what to say.
DICTATED = 'Скажи: {"result": 5}'
WEATHER = "Какая погода в Москве?"


class Sum(BaseModel):
    """Сумма чисел."""

    result: int


class Report(BaseModel):
    city: str


def model(url: str) -> OpenAIChatModel:
    return OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="any"))


def weather(city: str) -> str:
    """Погода в городе."""
    return "тепло"


def an_agent_answers_and_remembers(url: str) -> None:
    agent = Agent(model(url))
    first = agent.run_sync(SUM)
    assert first.output == TOTAL and first.usage.total_tokens == 16
    second = agent.run_sync("Скажи: гав", message_history=first.all_messages())
    assert second.output == "гав" and len(second.all_messages()) == 4


def an_agent_uses_its_tool(url: str) -> None:
    """It asks for it, gets the result and tells it; streamed as well."""
    agent = Agent(model(url), instructions="Ты вежливый робот", tools=[weather])
    run = agent.run_sync(WEATHER)
    assert run.output == "Функция weather вернула: result: тепло."
    assert (run.usage.requests, run.usage.tool_calls) == (2, 1)

    async def streamed() -> str:
        async with agent.run_stream(WEATHER) as answer:
            return "".join([text async for text in answer.stream_text(delta=True)])

    assert asyncio.run(streamed()) == run.output


def each_kind_of_structured_output_gives_an_object(url: str) -> None:
    for kind, question in (
        (Sum, SUM),
        (ToolOutput(Sum), SUM),
        (NativeOutput(Sum), SUM),
        (PromptedOutput(Sum), DICTATED),
    ):
        agent = Agent(model(url), output_type=kind)
        assert agent.run_sync(question).output == Sum(result=5), kind


def a_tool_and_structured_output_go_together(url: str) -> None:
    """Every answer must then be a call, of the tool or of the output, which is not to be had of GigaChat by a word."""
    agent = Agent(model(url), output_type=ToolOutput(Report, name="report"), tools=[weather])
    run = agent.run_sync(f"{WEATHER} Нужен report")
    assert run.output == Report(city="Москве")
    assert run.usage.tool_calls == 1


def what_is_wrong_is_told_with_its_status(url: str) -> None:
    try:
        Agent(model(url), model_settings=ModelSettings(temperature=5)).run_sync(SUM)
    except ModelHTTPError as error:
        assert error.status_code == 400 and error.body["param"] == "temperature"
    else:
        raise AssertionError("it did not raise")
