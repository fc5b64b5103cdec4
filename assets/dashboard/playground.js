// A chat through the line: its place while it waits, its words as they come.

import { ask, events, refusal } from "./service.js";
import { say, seconds } from "./text.js";
import { at } from "./page.js";

let leaving = null;

/** Its place, for as long as it waits; the stream itself is silent until the API answers. */
async function follow(id, signal) {
  while (!signal.aborted) {
    const response = await ask(`/queue/${id}`, { signal });
    if (response.ok) {
      const [told] = (await response.json()).requests;
      at("progress").textContent = told.place ? say("in-line", { n: told.place, t: told.eta === null ? "?" : seconds(told.eta) }) : say("in-flight");
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function converse(question, model, signal) {
  const id = crypto.randomUUID ? crypto.randomUUID() : String(Date.now());
  const began = performance.now();
  const following = new AbortController();
  signal.addEventListener("abort", () => following.abort());
  follow(id, following.signal).catch(() => {});
  try {
    const body = { stream: true, messages: [{ role: "user", content: question }], ...(model && { model }) };
    const headers = { "Content-Type": "application/json", "X-Request-ID": id };
    const response = await ask("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(await refusal(response));
    for await (const { data } of events(response)) {
      if (!data || data === "[DONE]") continue;
      const told = JSON.parse(data);
      if (told.error) throw new Error(told.error.message);
      following.abort();
      at("progress").textContent = say("streaming");
      at("answer").append(told.choices?.[0]?.delta?.content ?? "");
    }
    const waited = Number(response.headers.get("X-Queue-Wait-Ms") ?? 0) / 1000;
    at("progress").textContent = say("done", { waited: seconds(waited), took: seconds((performance.now() - began) / 1000) });
  } finally {
    following.abort();
  }
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
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
    at("send").disabled = false;
    at("leave").hidden = true;
  }
});

at("leave").addEventListener("click", () => leaving?.abort());
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
