// A chat through the line: its place while it waits, its words as they come.

import { at } from "./page.js";
import { ask, events, refusal } from "./service.js";
import { say, seconds } from "./text.js";

/** The id of the request that waits, "" if none does; and what ends it. */
let waiting = "";
/** Seconds that it has waited, as far as that is known. */
let waited = 0;
let leaving = new AbortController();
/** The one that was answered, and what is told of it; null once its model is, too. */
let answered = null;

/** Tell its place, as the page's stream has it; a line that is longer than the stream tells is asked for it. */
export async function follow(told) {
  named(told.last);
  const id = waiting;
  if (!id) return;
  const found = told.waiting.requests.find((each) => each.id === id) ?? (await asked(id));
  if (id !== waiting || !found) return;
  waited = found.waited;
  at("progress").textContent = found.place ? placed(found, told.lanes) : say("in-flight");
}

/** Which model answered is known when the request is over: the answer itself repeats the name that was asked for. */
function named(last) {
  const found = last.find(({ id }) => id === answered?.id);
  if (!found) return;
  at("progress").textContent = say("done", { ...answered.put, by: found.model && `${found.model}: ` });
  answered = null;
}

function placed({ lane, place, eta }, lanes) {
  if (lanes.find(({ name }) => name === lane)?.held) return say("in-line-held", { n: place });
  return say("in-line", { n: place, t: eta === null ? "?" : seconds(eta) });
}

async function asked(id) {
  try {
    const response = await ask(`/queue/${id}`);
    return response.ok ? (await response.json()).requests[0] : null;
  } catch {
    return null;
  }
}

async function converse(question, model, signal) {
  const id = crypto.randomUUID ? crypto.randomUUID() : `playground-${Date.now()}`;
  const began = performance.now();
  waiting = id;
  waited = 0;
  answered = null;
  const body = { stream: true, messages: [{ role: "user", content: question }], ...(model && { model }) };
  const headers = { "Content-Type": "application/json", "X-Request-ID": id };
  const response = await ask("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await refusal(response));
  // An early 200 comes before the wait is over, and says too little.
  waited = Math.max(waited, Number(response.headers.get("X-Queue-Wait-Ms") ?? 0) / 1000);
  for await (const { data } of events(response)) {
    if (!data || data === "[DONE]") continue;
    const told = JSON.parse(data);
    if (told.error) throw new Error(told.error.message);
    waiting = "";
    at("progress").textContent = say("streaming");
    at("answer").append(told.choices?.[0]?.delta?.content ?? "");
  }
  const put = { waited: seconds(waited), took: seconds((performance.now() - began) / 1000) };
  answered = { id, put };
  at("progress").textContent = say("done", put);
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (at("send").disabled) return;
  leaving = new AbortController();
  at("answer").textContent = "";
  at("progress").textContent = "…";
  at("send").disabled = true;
  at("leave").hidden = false;
  try {
    await converse(at("question").value, at("model").value.trim(), leaving.signal);
  } catch (error) {
    at("progress").textContent = leaving.signal.aborted ? say("gone") : error.message;
  } finally {
    waiting = "";
    at("send").disabled = false;
    at("leave").hidden = true;
  }
});

at("leave").addEventListener("click", () => leaving.abort());
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
