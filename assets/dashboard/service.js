// How the page talks to the service: one stream of what happens, and the few things that it can ask for.

import { tab } from "./memory.js";
import { say } from "./text.js";

const KEY = "key";

export function key() {
  return tab.get(KEY) ?? "";
}

export function keep(word) {
  if (word) tab.put(KEY, word);
  else tab.forget(KEY);
}

/** A text as its UTF-8 bytes, a character each: headers take nothing else. */
function bytesOf(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/** A request with the operator's key, if there is one: in a header, never in an address. */
export function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${bytesOf(key())}`;
  return fetch(path, { ...options, headers, cache: "no-store" });
}

/** What is wrong, in the service's own words; where it is the key, in the page's, for they name the button. */
export async function refusal(response) {
  if (response.status === 401) return say(key() ? "wrong-key" : "no-key");
  try {
    const told = await response.json();
    return told.error?.message ?? told.message ?? String(told.status);
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

/** The events of a response's stream: {event, data} as text. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held = (held + value).replaceAll("\r\n", "\n");
      for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
        yield parsed(held.slice(0, end));
        held = held.slice(end + 2);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const told = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) told.event = line.slice(6).trim();
    else if (line.startsWith("data:")) told.data += line.slice(5).trim();
  }
  return told;
}
