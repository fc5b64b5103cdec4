"""The official SDK against the emulator: each public method, sync and async."""

from typing import Any

import pytest
from emulator_callers import MODEL, Caller, Sdk
from gigachat import GigaChat, exceptions
from gigachat.models import Chat, Messages, MessagesRole
from pydantic import BaseModel

WEATHER = {
    "name": "get_weather",
    "description": "Погода в городе",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Sum(BaseModel):
    """What `parse` is asked for."""

    result: int
    comment: str | None = None


class TestTokens:
    async def test_get_token(self, sdk: Sdk) -> None:
        token = await sdk.do("get_token")
        assert token.access_token
        assert token.expires_at > 10**12

    async def test_a_token_is_asked_for_once(self, sdk: Sdk, caller: Caller) -> None:
        for _ in range(3):
            await sdk.do("chat", "Привет")
        assert caller.emulator.state.tokens.request_count == 1

    async def test_an_expired_token_is_renewed(self, sdk: Sdk, caller: Caller) -> None:
        await sdk.do("chat", "Привет")
        caller.emulator.state.tokens.expire_all()
        assert await sdk.do("chat", "Привет")
        assert caller.emulator.state.tokens.request_count == 2


class TestFirstVersion:
    async def test_chat(self, sdk: Sdk) -> None:
        answer = await sdk.do("chat", "Сколько будет 2+3?")
        assert answer.choices[0].message.content == "2+3 = 5"
        assert answer.x_headers["x-request-id"]

    async def test_chat_with_a_model_of_its_own(self, sdk: Sdk) -> None:
        message = Messages(role=MessagesRole.USER, content="Привет")
        answer = await sdk.do("chat", Chat(messages=[message], model="GigaChat-2-Max"))
        assert answer.model.startswith("GigaChat-2-Max:")

    async def test_chat_with_functions_there_and_back(self, sdk: Sdk) -> None:
        messages: list[Any] = [{"role": "user", "content": "Какая погода в Москве?"}]
        body = {"messages": messages, "functions": [WEATHER], "function_call": "auto"}
        message = (await sdk.do("chat", body)).choices[0].message
        assert message.function_call.arguments == {"city": "Москве"}
        messages += [message, {"role": "function", "name": "get_weather", "content": '{"t": 5}'}]
        assert "t: 5" in (await sdk.do("chat", body)).choices[0].message.content

    async def test_stream(self, sdk: Sdk) -> None:
        chunks = await sdk.chunks("stream", "раз, два, три")
        assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "Вы написали: раз, два, три"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.total_tokens

    async def test_chat_parse(self, sdk: Sdk) -> None:
        _, value = await sdk.do("chat_parse", "Сколько будет 6*7?", response_format=Sum)
        assert value == Sum(result=42)

    async def test_chat_parse_tells_of_a_cut_answer(self, sdk: Sdk) -> None:
        body = {"messages": [{"role": "user", "content": "6*7?"}], "max_tokens": 2}
        with pytest.raises(exceptions.LengthFinishReasonError):
            await sdk.do("chat_parse", body, response_format=Sum)


class TestSecondVersion:
    async def test_create(self, sdk: Sdk) -> None:
        answer = await sdk.do("chat.create", "Сколько будет 2+3?")
        assert answer.messages[0].content[0].text == "2+3 = 5"
        assert answer.usage.total_tokens

    async def test_create_with_functions_there_and_back(self, sdk: Sdk) -> None:
        messages: list[Any] = [{"role": "user", "content": "Какая погода в Москве?"}]
        body = {"messages": messages, "tools": [{"functions": {"specifications": [WEATHER]}}]}
        message = (await sdk.do("chat.create", body)).messages[0]
        assert message.tools_state_id
        assert message.content[0].function_call.arguments == {"city": "Москве"}
        result = {"function_result": {"name": "get_weather", "result": {"t": 5}}}
        messages += [message, {"role": "tool", "content": [result]}]
        assert "t: 5" in (await sdk.do("chat.create", body)).messages[0].content[0].text

    async def test_stream(self, sdk: Sdk) -> None:
        *deltas, done = await sdk.chunks("chat.stream", "раз, два, три")
        texts = [chunk.messages[0].content[0].text for chunk in deltas]
        assert "".join(texts) == "Вы написали: раз, два, три"
        assert (done.event, done.finish_reason) == ("response.message.done", "stop")

    async def test_parse(self, sdk: Sdk) -> None:
        _, value = await sdk.do("chat.parse", "Сколько будет 6*7?", response_format=Sum)
        assert value == Sum(result=42)


class TestTheRest:
    async def test_embeddings(self, sdk: Sdk) -> None:
        answer = await sdk.do("embeddings", ["раз", "два"])
        assert [len(each.embedding) for each in answer.data] == [1024, 1024]

    async def test_tokens_count(self, sdk: Sdk) -> None:
        (count,) = await sdk.do("tokens_count", ["Hello, world!"])
        assert (count.tokens, count.characters) == (4, 13)

    async def test_get_models(self, sdk: Sdk) -> None:
        assert MODEL in [model.id_ for model in (await sdk.do("get_models")).data]

    async def test_get_model(self, sdk: Sdk) -> None:
        assert (await sdk.do("get_model", MODEL)).id_ == MODEL

    async def test_files(self, sdk: Sdk) -> None:
        """upload_file, get_file, get_files, delete_file."""
        file = await sdk.do("upload_file", ("note.txt", b"text", "text/plain"))
        assert (file.filename, file.bytes_) == ("note.txt", 4)
        assert (await sdk.do("get_file", file.id_)).id_ == file.id_
        assert len((await sdk.do("get_files")).data) == 1
        assert (await sdk.do("delete_file", file.id_)).deleted

    async def test_get_image(self, sdk: Sdk) -> None:
        answer = await sdk.do(
            "chat", {"messages": [{"role": "user", "content": "Нарисуй кота"}], "function_call": "auto"}
        )
        image = await sdk.do("get_image", answer.choices[0].message.content[10:46])
        assert image.content.startswith("/9j/")

    async def test_get_balance(self, sdk: Sdk) -> None:
        assert (await sdk.do("get_balance")).balance[0].usage == "GigaChat"

    async def test_openapi_function_convert(self, sdk: Sdk) -> None:
        text = '{"paths": {"/pets": {"get": {"operationId": "list_pets"}}}}'
        assert (await sdk.do("openapi_function_convert", text)).functions[0].name == "list_pets"

    async def test_check_ai(self, sdk: Sdk) -> None:
        answer = await sdk.do("check_ai", "слово " * 20, "GigaCheckClassification")
        assert answer.category == "human"


class TestAssistants:
    async def test_create_get_update_and_delete(self, sdk: Sdk) -> None:
        id = (await sdk.do("assistants.create", MODEL, "Кот", file_ids=["f"])).assistant_id
        assert (await sdk.do("assistants.get", id)).data[0].name == "Кот"
        assert (await sdk.do("assistants.update", id, name="Пёс")).name == "Пёс"
        assert (await sdk.do("assistants.delete_file", id, "f")).deleted
        assert (await sdk.do("assistants.delete", id)).deleted
        assert (await sdk.do("assistants.get")).data == []


class TestThreads:
    async def test_create_list_retrieve_and_delete(self, sdk: Sdk) -> None:
        id = await sdk.do("threads.create_thread")
        assert [thread.id_ for thread in (await sdk.do("threads.get_threads")).threads] == [id]
        assert [thread.id_ for thread in (await sdk.do("threads.list")).threads] == [id]
        assert [thread.id_ for thread in (await sdk.do("threads.retrieve", [id])).threads] == [id]
        assert await sdk.do("threads.delete", id)
        assert (await sdk.do("threads.get_threads")).threads == []

    async def test_add_messages_and_run(self, sdk: Sdk) -> None:
        id = await sdk.do("threads.create_thread")
        await sdk.do("threads.add_message", id, "Привет")
        added = await sdk.do("threads.add_messages", id, ["Сколько будет 2+2?"])
        assert len(added.messages) == 1
        assert (await sdk.do("threads.run", id)).status == "in_progress"
        result = await sdk.do("threads.get_run", id)
        assert (result.status, result.messages[0].content) == ("ready", "2+2 = 4")
        assert len((await sdk.do("threads.get_messages", id)).messages) == 3

    async def test_run_stream(self, sdk: Sdk) -> None:
        id = await sdk.do("threads.create_thread")
        await sdk.do("threads.add_message", id, "Сколько будет 2+2?")
        assert spoken(await sdk.chunks("threads.run_stream", id)) == "2+2 = 4"

    async def test_run_and_rerun_messages(self, sdk: Sdk) -> None:
        answer = await sdk.do("threads.run_messages", ["2+2?"], model=MODEL)
        assert answer.message.content == "2+2 = 4"
        again = await sdk.do("threads.rerun_messages", answer.thread_id)
        assert (again.thread_id, again.message.content) == (answer.thread_id, "2+2 = 4")
        assert len((await sdk.do("threads.get_messages", answer.thread_id)).messages) == 2

    async def test_run_and_rerun_messages_in_a_stream(self, sdk: Sdk) -> None:
        chunks = await sdk.chunks("threads.run_messages_stream", ["2+2?"], model=MODEL)
        assert spoken(chunks) == "2+2 = 4"
        assert spoken(await sdk.chunks("threads.rerun_messages_stream", chunks[0].thread_id)) == "2+2 = 4"


def spoken(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content for chunk in chunks)


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, exceptions.BadRequestError),
            (402, exceptions.ResponseError),
            (403, exceptions.ForbiddenError),
            (404, exceptions.NotFoundError),
            (413, exceptions.RequestEntityTooLargeError),
            (422, exceptions.UnprocessableEntityError),
            (429, exceptions.RateLimitError),
            (500, exceptions.ServerError),
        ],
    )
    async def test_a_status_becomes_the_exception_of_the_sdk(
        self, sdk: Sdk, caller: Caller, status: int, error: type[Exception]
    ) -> None:
        caller.emulator.state.faults.add({"kind": "status", "status": status})
        with pytest.raises(error):
            await sdk.do("chat", "Привет")

    async def test_too_many_requests_have_no_retry_after(self, sdk: Sdk, caller: Caller) -> None:
        caller.emulator.state.faults.add({"kind": "429"})
        with pytest.raises(exceptions.RateLimitError) as caught:
            await sdk.do("chat", "Привет")
        assert not caught.value.retry_after

    async def test_a_wrong_key_is_an_authentication_error(self, caller: Caller) -> None:
        caller.emulator.state.change(credentials=["the-only-key"])
        url = caller.emulator.url
        async with GigaChat(
            base_url=f"{url}/v1", auth_url=f"{url}/api/v2/oauth", credentials="a2V5", model=MODEL
        ) as giga:
            with pytest.raises(exceptions.AuthenticationError):
                await giga.achat("Привет")


async def test_user_and_password(caller: Caller) -> None:
    caller.emulator.state.change(user="cat", password="mouse")
    async with GigaChat(base_url=f"{caller.emulator.url}/v1", user="cat", password="mouse", model=MODEL) as giga:
        for _ in range(2):
            assert await giga.achat("Привет")
    assert caller.emulator.state.tokens.request_count == 1
