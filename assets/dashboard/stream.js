// The one stream of what happens: it is opened again by itself, whatever broke it.

import { ask, events, refusal } from "./service.js";

/** Milliseconds before it is opened again, and of silence after which it is taken for broken: it tells every second. */
const AGAIN = 2000;
const SILENCE = 10_000;

let current = new AbortController();

/** Open it anew, now: with another key, say. */
export function again() {
  current.abort();
}

/**
 * Listen for ever. `heard` takes an event and its data, `lost` is told that there is no connection, `refused` why the
 * service tells nothing; then it is not asked again before `again`.
 */
export async function listen(heard, lost, refused) {
  for (;;) {
    const mine = (current = new AbortController());
    const isRefused = await listenOnce(mine.signal, heard, refused).catch(() => false);
    if (mine.signal.aborted) continue;
    if (!isRefused) lost();
    await new Promise((resolve) => {
      if (!isRefused) setTimeout(resolve, AGAIN);
      mine.signal.addEventListener("abort", resolve);
    });
  }
}

/** A fault of the page breaks no stream: it is told as any other. */
function attempt(what) {
  try {
    what();
  } catch (error) {
    reportError(error);
  }
}

/** Whether it was refused. Throws what breaks it. */
async function listenOnce(signal, heard, refused) {
  const silent = new AbortController();
  const watch = () => setTimeout(() => silent.abort(), SILENCE);
  let timer = watch();
  try {
    const response = await ask("/dashboard/events", { signal: AbortSignal.any([signal, silent.signal]) });
    if (response.status === 401 || response.status === 403) {
      refused(await refusal(response));
      return true;
    }
    if (!response.ok) throw new Error(await refusal(response));
    for await (const { event, data } of events(response)) {
      clearTimeout(timer);
      timer = watch();
      if (data) attempt(() => heard(event, JSON.parse(data)));
    }
    return false;
  } finally {
    clearTimeout(timer);
  }
}
