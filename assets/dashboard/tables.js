// Who waits, what became of the last requests, and the replicas.

import { at, button, rows, tell, write } from "./page.js";
import { cancel } from "./steering.js";
import { callerNamed, clock, number, percent, say, seconds } from "./text.js";
import { wrong } from "./tiles.js";

const known = (value, told) => (value === null ? "–" : told(value));

const LINE = [
  ["num", ({ place }) => known(place, number)],
  ["text", ({ caller }) => callerNamed(caller)],
  ["text wide-only", ({ id }) => id],
  ["text wide-only", ({ model }) => model],
  ["wide-only", ({ priority }) => say(priority)],
  ["num", ({ waited }) => seconds(waited)],
  ["num", ({ eta }) => known(eta, seconds)],
];

export function line({ waiting, lanes }) {
  const { total, requests } = waiting;
  write("line-total", total ? say("lines", { done: number(requests.length), total: number(total) }) : "");
  at("line-empty").hidden = total > 0;
  const several = lanes.length > 1;
  rows("line", several ? [...LINE.slice(0, 4), ["wide-only", ({ lane }) => lane], ...LINE.slice(5)] : LINE, requests, ({ id, lane }) => `${lane} ${id}`, cancelling);
  tell(at("line").tHead.rows[0].cells[4], say(several ? "lane" : "priority"));
}

function cancelling(row, { id }) {
  const press = row.querySelector("button") ?? row.insertCell().appendChild(button());
  tell(press, say("cancel"));
  press.setAttribute("aria-label", `${say("cancel")} ${id}`);
  press.onclick = async () => wrong(await cancel(id));
}

const LAST = [
  ["wide-only", (each) => clock(each.at)],
  ["text", ({ caller }) => callerNamed(caller)],
  ["text id wide-only", ({ id }) => id],
  ["text wide-only", ({ method, path }) => `${method} ${path}`],
  ["num", ({ status }) => (status === null ? say("left") : String(status))],
  ["story", story],
];

export function last({ last: requests }) {
  at("last-empty").hidden = requests.length > 0;
  rows("last", LAST, requests, ({ id, at: arrived }) => `${arrived} ${id}`, (row, { id, status, error }) => {
    row.className = status === null || status >= 400 ? "failed" : "";
    row.title = id;
    row.cells[4].title = error;
  });
}

function story({ attempts, waited, took, status, error }) {
  const calls = attempts === 0 ? "no-attempt" : attempts === 1 ? "attempt" : "attempts";
  const put = { waited: seconds(waited), took: seconds(took), attempts: say(calls, { n: attempts }), error: say(error) };
  return say(status === null ? "story-left" : error ? "story-failed" : "story-told", put);
}

const REPLICAS = [
  ["text", ({ name }) => name],
  ["num", ({ waiting }) => number(waiting)],
  ["num", ({ in_flight: flying }) => number(flying)],
  ["num", ({ share }) => known(share, percent)],
  ["num", ({ ago }) => (ago ? say("ago", { t: seconds(ago) }) : say("this-one"))],
];

export function replicas({ replicas: told }) {
  at("replicas-panel").hidden = told.length === 0;
  rows("replicas", REPLICAS, told, ({ name }) => name, (row, { silent, sent }) => {
    row.className = silent ? "failed" : "";
    row.title = say("sent", { n: number(sent) });
  });
}
