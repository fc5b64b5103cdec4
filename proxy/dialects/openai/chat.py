"""One chat completion request: what was asked, what to call for it, and how to tell the answer. No I/O, no clock.

    chat = Chat(body, options, id=..., created=...)       BadRequest for whatever is wrong with it
    files = {...}                                         `chat.attachments`, uploaded
    answers = [await call(chat.data(files))]
    while data := chat.another(answers, files):           rarely: see `further.py`
        answers.append(await call(data))
    chat.completion([answers, ...])                       n choices, each with the answers that led to it

A stream is read by `chat.stream(index)`, chunk by chunk. Where the answer must be looked at before it is told
(`is_whole`) it is asked for as above, and `chat.chunks([answers, ...])` tells it as a stream.

Making a Chat twice of one body gives the same twice, so that a request that waits need only keep its bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from proxy.connector import Chunk, Data
from proxy.dialects.openai import further, parameters, shapes
from proxy.dialects.openai.answers import Said, fingerprint, parsed, said, stored
from proxy.dialects.openai.completions import Manner
from proxy.dialects.openai.formats import format_of
from proxy.dialects.openai.messages import NOTHING, Conversation
from proxy.dialects.openai.options import Options
from proxy.dialects.openai.parts import Attachment
from proxy.dialects.openai.streams import KIND, ChatStream, chunk_choices
from proxy.dialects.openai.tools import tools_of
from proxy.dialects.openai.usage import usage_of
from proxy.errors import BadRequest

#: The answers that led to one choice; the last one is told.
Answers = Sequence[Chunk]
#: What GigaChat's own function reads, which must be allowed for it.
READ: Final = ("document", "file")


class Chat:
    """See the head of this file.

    Args:
        body: the parsed JSON of the request.
        id: of the completion, such as chatcmpl-...
        created: unix seconds.

    Attributes:
        is_stream, wants_usage: whether a stream is asked for, and its usage in a last chunk.
        n: how many choices are asked for; each is a call of its own.
        model: the name that the caller gave, which every answer repeats.
        sub_caller: who among the caller's users asks; "" if it does not say.
        attachments: what must be uploaded before the call, in order.
        ignored: fields that mean nothing here, for the log.

    Raises:
        BadRequest: with the path of the field that is to blame.
    """

    def __init__(self, body: object, options: Options, *, id: str, created: int) -> None:
        asked = shapes.chat(body)
        self.is_stream = asked.get("stream") is True
        self.wants_usage = parameters.wants_usage(asked)
        self.n = int(asked.get("n", 1))
        self.model = str(asked.get("model") or options.default_model)
        self.sub_caller = str(asked.get("user") or asked.get("safety_identifier") or "")
        self.ignored = parameters.ignored(asked)
        self._options = options
        self._tools = tools_of(asked)
        self._conversation = Conversation(asked["messages"])
        self.attachments = self._allowed(self._conversation.attachments)
        #: Whether GigaChat needs its own function that reads documents.
        self._reads = any(each.kind in READ for each in self.attachments)
        self._format = format_of(asked, options, has_others=self._tools.may_be_called or self._reads)
        self._parameters = parameters.parameters(asked, options)
        self._call = self._told_call()
        self._manner = Manner(
            id=id,
            created=created,
            model=self.model,
            names=self._tools.names,
            format=self._format,
            stops=parameters.stops(asked),
            image_link=options.image_link,
            is_legacy=self._tools.is_legacy,
        )

    @property
    def is_whole(self) -> bool:
        """The answer must be complete before it is told: a stream too is asked for as a plain answer."""
        return self._format.is_json or self._tools.must_choose

    # -- what to call

    def data(self, files: Mapping[str, str] = NOTHING) -> Data:
        """The call for the connector.

        Args:
            files: the id of the file for the source of each attachment.

        Raises:
            KeyError: an attachment has no file.
        """
        return self._data(files, self._call, further.CALL_ONE if self._tools.must_choose else "")

    def another(self, answers: Answers, files: Mapping[str, str] = NOTHING) -> Data | None:
        """The further call that the last of the answers makes necessary; None if it is the one to tell."""
        if not self.is_whole:
            return None
        what = said(parsed(answers[-1]))
        if what.is_cut:
            return None
        if self._tools.must_choose:
            return self._next_choice(len(answers), what, files)
        judged = self._manner.judged(what)
        if not judged.fault or len(answers) > self._options.json_repairs:
            return None
        data = self.data(files)
        data["messages"] += further.repair(judged.text, judged.fault)
        return data

    def _next_choice(self, calls: int, what: Said, files: Mapping[str, str]) -> Data | None:
        functions = self._tools.functions
        if calls == 1 and not what.call:
            return self._data(files, further.choosing(functions))
        if calls == 2:
            return self._data(files, self._call | {"function_call": {"name": further.chosen(what, functions)}})
        return None

    def _data(self, files: Mapping[str, str], call: dict[str, Any], instruction: str = "") -> Data:
        instructions = "\n\n".join(filter(None, (self._format.instruction, instruction)))
        messages = self._conversation.messages(files, instructions)
        return {"messages": messages, "generate_parameters": {**self._parameters, **call}}

    def _told_call(self) -> dict[str, Any]:
        """What tools and format add to the call."""
        # Where no tool may be called but documents are to be read, GigaChat's function for it is the only one left.
        tools = self._tools.told() if self._tools.may_be_called or not self._reads else {}
        told = {**tools, **self._format.told()}
        return told if "functions" in told or not self._reads else {**told, "function_call": "auto"}

    def _allowed(self, attachments: list[Attachment]) -> list[Attachment]:
        brought = [each.param for each in attachments if each.form != "id"]
        if brought and not self._options.enable_images:
            raise BadRequest(
                f'"{brought[0]}" is not taken here: the operator would set GPT2GIGA_ENABLE_IMAGES=true',
                param=brought[0],
            )
        return attachments

    # -- how to tell the answer

    def completion(self, choices: Sequence[Answers]) -> dict[str, Any]:
        """The whole answer. Raises UpstreamError for one that cannot be read, or that breaks a promise."""
        answers = [[parsed(answer) for answer in choice] for choice in choices]
        first = answers[0][-1]
        heading = self._manner.heading("chat.completion", fingerprint(first.get("model")))
        told = [self._manner.choice(index, said(choice[-1])) for index, choice in enumerate(answers)]
        usage = usage_of(answer.get("usage") for choice in answers for answer in choice)
        return {**heading, "choices": told, "usage": usage, **stored(first)}

    def chunks(self, choices: Sequence[Answers]) -> list[dict[str, Any]]:
        """The same as the chunks of a stream."""
        heading = self.completion(choices) | {"object": KIND}
        told, usage = heading.pop("choices"), heading.pop("usage")
        last = [{**heading, "choices": [], "usage": usage}] if self.wants_usage and usage else []
        if self.wants_usage:
            heading["usage"] = None
        return [{**heading, "choices": [each]} for choice in told for each in chunk_choices(choice)] + last

    def stream(self, index: int = 0) -> ChatStream:
        """What makes chunks of the upstream's, for one choice."""
        return ChatStream(self._manner, index, wants_usage=self.wants_usage)

    def usage_chunk(self, streams: Sequence[ChatStream]) -> dict[str, Any] | None:
        """The last chunk of a stream, when all its choices are told.

        None if the caller did not ask for it, or if the upstream told nothing of it.
        """
        usage = usage_of(stream.usage for stream in streams) if self.wants_usage else None
        return {**streams[0].heading, "choices": [], "usage": usage} if usage else None
