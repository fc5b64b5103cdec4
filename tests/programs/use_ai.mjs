// Vercel's AI SDK with its provider for APIs like OpenAI's. Each function is a promise; the address is ours.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const SUM = "Сколько будет 2 + 3?";
const TOTAL = "2 + 3 = 5";
const WEATHER = "Какая погода в Москве?";
const TOLD = "Функция weather вернула: city: Москве, temperature: +7.";
const MANY = 20;

const weather = tool({
  description: "Погода в городе",
  inputSchema: z.object({ city: z.string() }),
  execute: ({ city }) => ({ city, temperature: "+7" }),
});

const provider = (url, more = {}) =>
  createOpenAICompatible({ name: "gigachat", baseURL: `${url}/v1`, apiKey: "any", includeUsage: true, ...more });

export async function a_text_and_a_stream_come_with_their_usage(url) {
  const model = provider(url)("gpt-4o");
  const answer = await generateText({ model, prompt: SUM });
  assert.equal(answer.text, TOTAL);
  assert.equal(answer.usage.totalTokens, 16);
  const pieces = [];
  const stream = streamText({ model, prompt: "Скажи: раз, два, три" });
  for await (const piece of stream.textStream) pieces.push(piece);
  assert.deepEqual(pieces, ["раз, ", "два, ", "три"]);
  assert.equal((await stream.usage).outputTokens, 5);
}

// The SDK calls it itself and sends its result back; streamed as well.
export async function a_tool_makes_a_whole_round(url) {
  const asked = { model: provider(url)("gpt-4o"), tools: { weather }, prompt: WEATHER, stopWhen: stepCountIs(3) };
  const answer = await generateText(asked);
  assert.equal(answer.text, TOLD);
  assert.equal(answer.steps.length, 2);
  assert.equal(await streamText(asked).text, TOLD);
}

export async function a_tool_can_be_demanded(url) {
  const model = provider(url)("gpt-4o");
  for (const toolChoice of ["required", { type: "tool", toolName: "weather" }]) {
    const { toolCalls } = await generateText({ model, tools: { weather }, toolChoice, prompt: "Привет" });
    assert.deepEqual(toolCalls.map((call) => call.toolName), ["weather"]);
  }
}

// By a schema, and by JSON mode, which has none that the emulator could fill: it is told what to say.
export async function structured_output_gives_an_object(url) {
  for (const [supportsStructuredOutputs, prompt] of [[true, SUM], [false, 'Скажи: {"result": 5}']]) {
    const model = provider(url, { supportsStructuredOutputs })("gpt-4o");
    const output = Output.object({ schema: z.object({ result: z.number().int() }) });
    assert.deepEqual((await generateText({ model, output, prompt })).output, { result: 5 });
    assert.deepEqual(await streamText({ model, output, prompt }).output, { result: 5 });
  }
}

export async function texts_become_vectors(url) {
  const model = provider(url).embeddingModel("text-embedding-3-small");
  const { embeddings } = await embedMany({ model, values: ["раз", "два"] });
  assert.deepEqual(embeddings.map((each) => each.length), [1024, 1024]);
}

// Though the account allows one call at a time, and the SDK is not to ask again.
export async function many_questions_at_once_are_all_answered(url) {
  const model = provider(url)("gpt-4o");
  const ask = (number) => generateText({ model, prompt: `Скажи: ${number}`, maxRetries: 0 });
  const answers = await Promise.all(Array.from({ length: MANY }, (_, number) => ask(number)));
  assert.deepEqual(answers.map((each) => each.text), [...Array(MANY).keys()].map(String));
}

export async function what_is_wrong_is_told_and_not_asked_again(url) {
  await assert.rejects(generateText({ model: provider(url)("gpt-4o"), prompt: SUM, temperature: 5 }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 400);
    assert.equal(error.isRetryable, false);
    return true;
  });
}
