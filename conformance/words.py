"""Promises about validate_data and get_info: what a connector says before anybody is called."""

import asyncio
from copy import deepcopy
from typing import Any

import orjson

from conformance.promises import PATIENCE, Bench, Broken, Chapter, file_of, shown, told
from proxy.connector import Data, described, is_async
from proxy.threads import in_thread

CHAPTER = Chapter()

#: Messages and parameters that callers do send: the service lets them through to validate_data.
ODD_MESSAGES: list[dict[str, Any]] = [
    {},
    {"role": "user"},
    {"content": "no role"},
    {"role": "user", "content": None},
    {"role": None, "content": 5},
    {"role": "user", "content": []},
    {"role": "user", "content": [{"type": "text", "text": "parts"}]},
]
ODD_VALUES: tuple[Any, ...] = (None, "hot", -1, [5], {"a": {}})
ODD_PARAMETERS: list[dict[str, Any]] = [
    {name: value}
    for name in ("model", "temperature", "max_tokens", "stream", "stop", "functions", "tools", "unheard_of")
    for value in ODD_VALUES
]


def verdict_on(bench: Bench, data: Data) -> object:
    """True, or the ValueError or TypeError that validate_data raised. Raises Broken for all else."""
    try:
        verdict = bench.connector.validate_data(data)
    except (ValueError, TypeError) as error:
        return error
    except Exception as error:
        raise Broken(
            f"validate_data raised {told(error, file_of(bench.connector))} for {shown(data)}: the caller gets a 500 "
            "without a reason; raise ValueError or TypeError that names the field"
        ) from error
    if verdict is not True:
        raise Broken(
            f"validate_data returned {shown(verdict)} for {shown(data)}: return True, or raise ValueError or "
            "TypeError that says why"
        )
    return True


@CHAPTER.promise("what is right passes", needs_api=False)
async def what_is_right_passes(bench: Bench) -> None:
    data = bench.data()
    verdict = verdict_on(bench, data)
    if verdict is not True:
        raise Broken(f"validate_data refused the sample {shown(data)}: {verdict}. If it is wrong, set CHECK['sample']")
    if data != bench.data():
        raise Broken(f"validate_data changed what it was given to {shown(data)}: work on a copy")


@CHAPTER.promise("what is wrong is refused by ValueError or TypeError that names the field", needs_api=False)
async def what_is_wrong_is_named(bench: Bench) -> str | None:
    wrong = {word: bench.declared.wrong_data(word) for word in bench.declared.invalid}
    for word, data in {"messages": {**bench.data(), "messages": []}, **wrong}.items():
        verdict = verdict_on(bench, deepcopy(data))
        if not isinstance(verdict, Exception):
            raise Broken(f"validate_data let this pass: {shown(data)}; it must raise ValueError that names {word!r}")
        if word not in f"{verdict} {getattr(verdict, 'param', '')}":
            raise Broken(
                f"validate_data refused {shown(data)} with {described(verdict)}, which does not name {word!r}: the "
                "text is all that the caller learns"
            )
    return None if wrong else "name what else is wrong, under the field: CHECK['invalid'] = {'temperature': {...}}"


@CHAPTER.promise("whatever a caller sends, it passes or is refused with a reason", needs_api=False)
async def no_data_breaks_it(bench: Bench) -> None:
    odd = [{**bench.data(), "messages": [message]} for message in ODD_MESSAGES]
    odd += [{**bench.data(), "generate_parameters": parameters} for parameters in ODD_PARAMETERS]
    for data in odd:
        verdict = verdict_on(bench, deepcopy(data))
        if isinstance(verdict, Exception) and not str(verdict).strip():
            raise Broken(f"validate_data refused {shown(data)} with an empty {type(verdict).__name__}: say why")


@CHAPTER.promise("get_info is a JSON object that names the connector, and holds no secret")
async def info_names_it(bench: Bench) -> None:
    try:
        info = await asyncio.wait_for(information(bench), PATIENCE)
        text = orjson.dumps(info).decode()
    except TimeoutError:
        raise Broken(f"get_info was not done after {PATIENCE:g} s") from None
    except orjson.JSONEncodeError as error:
        raise Broken(f"get_info returned what cannot be written as JSON: {error}") from error
    except Exception as error:
        raise Broken(f"get_info raised {told(error, file_of(bench.connector))}") from error
    if not isinstance(info, dict) or not info:
        raise Broken(f'get_info returned {shown(info)}: return a dict such as {{"default-model": "small"}}')
    no_secret(bench, text, "get_info")


async def information(bench: Bench) -> object:
    """What get_info itself gives: the border would make {} of what is no dict."""
    get_info = bench.connector.get_info
    return await (get_info() if is_async(get_info) else in_thread(get_info))


def no_secret(bench: Bench, text: str, where: str) -> None:
    for name, value in bench.declared.env.items():
        if value in bench.declared.secrets and value in text:
            raise Broken(f"{where} tells the value of {name}: anybody may read that")
