// OpenAI's SDK for Node. Each function is a promise; the address is ours.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const MODEL = "gpt-4o";
const SUM = [{ role: "user", content: "Сколько будет 2 + 3?" }];
const TOTAL = "2 + 3 = 5";
const WEATHER = [{ role: "user", content: "Какая погода в Москве?" }];
const TOLD = "Функция get_weather вернула: city: Москве, temperature: +7.";
const TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Погода в городе",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      parse: JSON.parse,
      function: ({ city }) => ({ city, temperature: "+7" }),
    },
  },
];
const SCHEMA = {
  type: "object",
  properties: { result: { type: "integer" } },
  required: ["result"],
  additionalProperties: false,
};
const MANY = 20;

const client = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });

export async function a_chat_and_a_stream_come_with_their_usage(url) {
  const { completions } = client(url).chat;
  const answer = await completions.create({ model: MODEL, messages: SUM });
  assert.equal(answer.choices[0].message.content, TOTAL);
  assert.equal(answer.usage.total_tokens, 16);
  const asked = { model: MODEL, messages: SUM, stream: true, stream_options: { include_usage: true } };
  let text = "";
  let usage;
  for await (const chunk of await completions.create(asked)) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage;
  }
  assert.equal(text, TOTAL);
  assert.equal(usage.total_tokens, 16);
}

// The SDK calls it itself and sends its result back; streamed as well.
export async function a_tool_makes_a_whole_round(url) {
  for (const stream of [false, true]) {
    const runner = client(url).chat.completions.runTools({ model: MODEL, messages: WEATHER, tools: TOOLS, stream });
    assert.equal(await runner.finalContent(), TOLD);
  }
}

export async function structured_output_is_parsed(url) {
  const format = { type: "json_schema", json_schema: { name: "sum", strict: true, schema: SCHEMA } };
  const asked = { model: MODEL, messages: SUM, response_format: format };
  const answer = await client(url).chat.completions.parse(asked);
  assert.deepEqual(answer.choices[0].message.parsed, { result: 5 });
}

export async function vectors_models_and_files_are_served(url) {
  const openai = client(url);
  const { data } = await openai.embeddings.create({ model: "text-embedding-3-small", input: ["раз", "два"] });
  assert.deepEqual(data.map((each) => each.embedding.length), [1024, 1024]);
  assert.ok((await openai.models.list()).data.some((model) => model.id === "GigaChat-2"));
  const content = await toFile(Buffer.from("раз"), "one.txt");
  const file = await openai.files.create({ file: content, purpose: "user_data" });
  assert.equal(await (await openai.files.content(file.id)).text(), "раз");
  assert.equal((await openai.files.delete(file.id)).deleted, true);
}

export async function a_batch_becomes_a_file_of_answers(url) {
  const { files, batches } = client(url);
  const body = { model: MODEL, messages: SUM };
  const line = { custom_id: "one", method: "POST", url: "/v1/chat/completions", body };
  const content = await toFile(Buffer.from(JSON.stringify(line)), "lines.jsonl");
  const { id } = await files.create({ file: content, purpose: "batch" });
  const asked = { input_file_id: id, endpoint: "/v1/chat/completions", completion_window: "24h" };
  let batch = await batches.create(asked);
  while (batch.status !== "completed") {
    await new Promise((next) => setTimeout(next, 20));
    batch = await batches.retrieve(batch.id);
  }
  const answer = JSON.parse(await (await files.content(batch.output_file_id)).text());
  assert.equal(answer.custom_id, "one");
  assert.equal(answer.response.body.choices[0].message.content, TOTAL);
  assert.deepEqual(batch.request_counts, { total: 1, completed: 1, failed: 0 });
  assert.equal((await batches.list()).data[0].id, batch.id);
}

// Though the account allows one call at a time, and the SDK is not to ask again.
export async function many_questions_at_once_are_all_answered(url) {
  const openai = client(url);
  const ask = (number) =>
    openai.chat.completions.create({ model: MODEL, messages: [{ role: "user", content: `Скажи: ${number}` }] });
  const answers = await Promise.all(Array.from({ length: MANY }, (_, number) => ask(number)));
  assert.deepEqual(answers.map((each) => each.choices[0].message.content), [...Array(MANY).keys()].map(String));
}

export async function what_is_wrong_raises_the_sdks_own_exception(url) {
  const asked = { model: MODEL, messages: SUM, temperature: 5 };
  await assert.rejects(client(url).chat.completions.create(asked), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
}
