"""langchain-gigachat and LangGraph, sent here by two environment variables alone: their users' code stays as it is."""

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypedDict

import pytest
from gigachat.exceptions import AuthenticationError, RateLimitError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_gigachat import GigaChat, GigaChatEmbeddings
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel
from running import Proxy, StartProxy

from emulator import Options

SUM, TOTAL = "Сколько будет 2 + 3?", "2 + 3 = 5"
#: The emulator says of itself only what it is told to say: a JSON where nothing asks for one by a schema.
DICTATED = [SystemMessage('На все вопросы отвечай {"result": 42}'), HumanMessage("Ответь, пожалуйста")]
MANY = 30


class Sum(BaseModel):
    """Сумма или произведение чисел."""

    result: int


@tool
def weather(city: str) -> dict[str, str]:
    """Погода в городе."""
    return {"city": city, "temperature": "+7"}


@pytest.fixture
def sent_here(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> StartProxy:
    """As `start_proxy`; and the environment names the proxy's two addresses."""
    monkeypatch.setenv("LANGSMITH_TRACING", "false")

    async def start(options: Options | None = None, **knobs: Any) -> Proxy:
        proxy: Proxy = await start_proxy(options, **knobs)
        monkeypatch.setenv("GIGACHAT_BASE_URL", f"{proxy.url}/api/v1")
        monkeypatch.setenv("GIGACHAT_AUTH_URL", f"{proxy.url}/api/v2/oauth")
        return proxy

    return start


Make = Callable[..., Any]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """`make(GigaChatEmbeddings)`: a model as its user would make it. It cannot close itself, so this does."""
    async with AsyncExitStack() as stack:

        def made(kind: Callable[..., Any] = GigaChat, **named: Any) -> Any:
            model = kind(**{"credentials": "anything", "model": "GigaChat-2", **named})
            stack.push_async_callback(model._client.aclose)
            return model

        yield made


Ask = Callable[[Runnable[Any, Any], Any], Awaitable[Any]]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`await ask(runnable, question)`: by `invoke` in a thread, or by `ainvoke`."""

    async def asked(runnable: Runnable[Any, Any], question: Any) -> Any:
        if request.param == "async":
            return await runnable.ainvoke(question)
        return await asyncio.to_thread(runnable.invoke, question)

    return asked


# -- one by one


async def test_a_chat_is_answered_with_its_usage_and_its_id(sent_here: StartProxy, make: Make, ask: Ask) -> None:
    """What LangChain shows of an answer is the API's own."""
    proxy = await sent_here()
    answer = await ask(make(temperature=0.5, max_tokens=50), SUM)
    assert answer.content == TOTAL
    assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["input_tokens"] > 0
    assert answer.id == answer.response_metadata["x_headers"]["x-request-id"]
    (sent,) = await proxy.calls()
    assert (sent["body"]["temperature"], sent["body"]["max_tokens"]) == (0.5, 50)
    assert sent["headers"]["user-agent"] == "GigaChat-python-lib"


async def test_a_stream_comes_in_pieces(sent_here: StartProxy, make: Make) -> None:
    """Sync and async; the usage is in the last piece."""
    await sent_here()
    model = make(streaming=True)  # langchain-gigachat 0.5.1 streams only if told so
    sync = await asyncio.to_thread(lambda: list(model.stream("Скажи: раз, два, три")))
    for pieces in sync, [piece async for piece in model.astream("Скажи: раз, два, три")]:
        assert [piece.content for piece in pieces if piece.content] == ["раз, ", "два, ", "три"]
        assert any(piece.usage_metadata for piece in pieces[-2:])


async def test_a_whole_round_with_a_tool(sent_here: StartProxy, make: Make, ask: Ask) -> None:
    """The model asks for the tool, gets its result, and answers with it."""
    proxy = await sent_here()
    model = make().bind_tools([weather])
    question = HumanMessage("Какая погода в городе Москва?")
    asked = await ask(model, [question])
    assert [(call["name"], call["args"]) for call in asked.tool_calls] == [("weather", {"city": "Москва"})]
    result = await ask(weather, asked.tool_calls[0])
    answer = await ask(model, [question, asked, result])
    assert answer.content == "Функция weather вернула: city: Москва, temperature: +7."
    assert [call["status"] for call in await proxy.calls()] == [200, 200]


async def test_a_tool_can_be_forced(sent_here: StartProxy, make: Make, ask: Ask) -> None:
    """By its name, whatever the question."""
    await sent_here()
    asked = await ask(make().bind_tools([weather], tool_choice="weather"), "Привет, Москва")
    assert [call["name"] for call in asked.tool_calls] == ["weather"]


@pytest.mark.parametrize("schema", [Sum, Sum.model_json_schema()], ids=["pydantic", "json"])
@pytest.mark.parametrize("method", ["function_calling", "json_schema", "format_instructions", "json_mode"])
async def test_an_answer_by_a_schema(sent_here: StartProxy, make: Make, ask: Ask, method: str, schema: Any) -> None:
    """By every method that the library has; the first two are the API's, the others only ask politely."""
    await sent_here()
    is_checked = method in ("function_calling", "json_schema")
    structured = structured_by(make(), schema, method)
    answer = await ask(structured, "Сколько будет 6 * 7?" if is_checked else DICTATED)
    assert answer == (Sum(result=42) if schema is Sum else {"result": 42})


def structured_by(model: GigaChat, schema: Any, method: str) -> Runnable[Any, Any]:
    if method != "json_mode":
        return model.with_structured_output(schema, method=method)
    with pytest.warns(DeprecationWarning, match="json_mode"):
        return model.with_structured_output(schema, method=method)


async def test_an_answer_by_a_schema_together_with_the_message(sent_here: StartProxy, make: Make, ask: Ask) -> None:
    """`include_raw`: what was said, and what it means."""
    await sent_here()
    model = make().with_structured_output(Sum, method="json_schema", include_raw=True)
    answer = await ask(model, "Сколько будет 6 * 7?")
    assert answer["parsed"] == Sum(result=42) and answer["parsing_error"] is None
    assert isinstance(answer["raw"], AIMessage) and answer["raw"].content == '{"result":42}'


async def test_embeddings(sent_here: StartProxy, make: Make) -> None:
    """Of a question and of documents, sync and async."""
    proxy = await sent_here()
    model = make(GigaChatEmbeddings, model="Embeddings-2")
    found = await asyncio.to_thread(model.embed_documents, ["раз", "два"])
    assert found == await model.aembed_documents(["раз", "два"]) and [len(each) for each in found] == [1024, 1024]
    assert found[0] == await asyncio.to_thread(model.embed_query, "раз") == await model.aembed_query("раз")
    assert {call["body"]["model"] for call in await proxy.calls("/embeddings")} == {"Embeddings-2"}


async def test_tokens_are_counted_by_the_api(sent_here: StartProxy, make: Make) -> None:
    """Not by LangChain's rule of thumb."""
    proxy = await sent_here()
    model = make(use_api_for_tokens=True)
    counted = await asyncio.to_thread(model.tokens_count, ["раз", "четыре"])
    assert [each.characters for each in counted] == [3, 6]
    assert counted == await model.atokens_count(["раз", "четыре"])
    assert await asyncio.to_thread(model.get_num_tokens, "четыре") == counted[1].tokens
    assert len(await proxy.calls("/tokens/count")) == 3


async def test_models_and_files(sent_here: StartProxy, make: Make) -> None:
    """What else the library asks the API for."""
    await sent_here()
    model = make()
    assert "GigaChat-2" in [each.id_ for each in (await model.aget_models()).data]
    file = await model.aupload_file(("note.txt", "текст".encode(), "text/plain"))
    assert (await model.aget_file_content(file.id_)).content == "0YLQtdC60YHRgg=="
    assert (await model.adelete_file(file.id_)).deleted


async def test_a_key_of_the_proxy_goes_where_the_credentials_went(sent_here: StartProxy, make: Make, ask: Ask) -> None:
    """And a wrong one is the SDK's AuthenticationError."""
    await sent_here(proxy_api_keys="anna:the-key-of-anna")
    assert (await ask(make(credentials="the-key-of-anna"), SUM)).content == TOTAL
    with pytest.raises(AuthenticationError):
        await ask(make(credentials="another-key"), SUM)


# -- all at once


Burst = Callable[[GigaChat], Awaitable[list[str]]]
QUESTIONS = [f"Скажи: {number}" for number in range(MANY)]


async def gathered(model: GigaChat) -> list[str]:
    return [answer.text for answer in await asyncio.gather(*map(model.ainvoke, QUESTIONS))]


async def batched(model: GigaChat) -> list[str]:
    """In threads, as `batch` does it."""
    answers = await asyncio.to_thread(model.batch, QUESTIONS, {"max_concurrency": MANY})
    return [answer.text for answer in answers]


async def batched_async(model: GigaChat) -> list[str]:
    return [answer.text for answer in await model.abatch(QUESTIONS, {"max_concurrency": MANY})]


async def side_by_side(model: GigaChat) -> list[str]:
    steps = {text: RunnableLambda(lambda _, text=text: text) | model for text in QUESTIONS}
    answers = await RunnableParallel(steps).ainvoke({})
    return [answers[text].text for text in QUESTIONS]


async def streamed(model: GigaChat) -> list[str]:
    async def one(question: str) -> str:
        return "".join([piece.text async for piece in model.astream(question, stream=True)])

    return await asyncio.gather(*map(one, QUESTIONS))


async def by_a_graph(model: GigaChat) -> list[str]:
    """LangGraph sends each question to a node of its own, and gathers their answers."""

    class Answers(TypedDict):
        answers: Annotated[list[str], operator.add]

    async def node(question: str) -> Answers:
        return {"answers": [(await model.ainvoke(question)).text]}

    graph = StateGraph(Answers)
    graph.add_node("ask", node)
    graph.add_conditional_edges(START, lambda state: [Send("ask", text) for text in QUESTIONS], ["ask"])
    return list((await graph.compile().ainvoke({"answers": []}))["answers"])


BURSTS = [gathered, batched, batched_async, side_by_side, streamed, by_a_graph]


@pytest.mark.parametrize("burst", BURSTS, ids=lambda burst: burst.__name__)
async def test_thirty_at_once_are_all_answered_by_an_api_that_takes_one(
    sent_here: StartProxy, make: Make, burst: Burst
) -> None:
    """Each gets its own answer; neither they nor the API ever see a 429, and the API never has two in flight."""
    proxy = await sent_here(Options(concurrency=1, latency=0.01), ext_max_requests=1)
    assert await burst(make()) == [str(number) for number in range(MANY)]
    calls = await proxy.calls()
    assert [call["status"] for call in calls] == [200] * MANY
    assert {call["in_flight"] for call in calls} == {1}
    assert proxy.giga.state.counters()["refused"] == 0


async def test_the_same_straight_at_the_api_is_refused(
    sent_here: StartProxy, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above shows what the proxy is for."""
    proxy = await sent_here(Options(concurrency=1, latency=0.05))
    monkeypatch.setenv("GIGACHAT_BASE_URL", f"{proxy.giga.url}/v1")
    monkeypatch.setenv("GIGACHAT_AUTH_URL", f"{proxy.giga.url}/api/v2/oauth")
    answers = await asyncio.gather(*map(make().ainvoke, QUESTIONS), return_exceptions=True)
    assert any(isinstance(answer, RateLimitError) for answer in answers)
