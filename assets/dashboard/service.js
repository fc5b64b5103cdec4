// How the page talks to the service: one stream of what happens, and the few things that it can ask for.

const KEY = "key";

export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function keep(word) {
  if (word) sessionStorage.setItem(KEY, word);
  else sessionStorage.removeItem(KEY);
}

/** A request with the operator's key, if there is one: in a header, never in an address. */
export function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  return fetch(path, { ...options, headers, cache: "no-store" });
}

/** What is wrong, in the service's own words. */
export async function refusal(response) {
  try {
    const told = await response.json();
    return told.error?.message ?? told.message ?? String(told.status);
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

/** The events of a response's stream: {event, data} as text, comments as {comment}. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value.replaceAll("\r\n", "\n");
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
  const told = { event: "message", data: "", comment: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith(":")) told.comment = line.slice(1).trim();
    else if (line.startsWith("event:")) told.event = line.slice(6).trim();
    else if (line.startsWith("data:")) told.data += line.slice(5).trim();
  }
  return told;
}
