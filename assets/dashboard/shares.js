// Who uses the service, how it was answered, and the jobs.

import { at, bars, facts } from "./page.js";
import { bytes, callerNamed, number, percent, say } from "./text.js";

const MOST_BARS = 8;

export function callers({ callers: told }) {
  bars("callers", told.slice(0, MOST_BARS).map(({ name, share, waiting }) => {
    const text = waiting ? `${percent(share)}, ${say("n-waiting", { n: number(waiting) })}` : percent(share);
    return { name: callerNamed(name), value: share, most: 1, text };
  }));
}

export function statuses({ statuses: told }) {
  const all = Object.entries(told).sort(([a], [b]) => a.localeCompare(b));
  bars("statuses", all.map(([status, count]) => ({ name: status === "left" ? say("left") : status, value: count, text: number(count), isBad: status >= "400" })));
}

export function jobs({ jobs: told, batches }) {
  at("jobs-panel").hidden = told === null;
  if (told === null) return;
  facts(at("jobs"), [
    [say("live_jobs"), number(told.live)], [say("batch_jobs"), number(told.batch)], [say("running"), number(told.running)],
    [say("delayed"), number(told.delayed)], [say("kept"), number(told.jobs)], [say("bytes"), bytes(told.bytes)],
  ]);
  bars("batches", batches.map(({ id, state, total, done, failed }) => {
    const lines = say("lines", { done: number(done + failed), total: number(total) });
    const wrong = failed ? `, ${say("failed")}: ${number(failed)}` : "";
    return { name: id, value: done + failed, most: Math.max(1, total), isBad: failed > 0, text: `${say(state)}, ${lines}${wrong}` };
  }));
}
