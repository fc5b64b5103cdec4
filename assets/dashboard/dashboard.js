// The page: one stream of what happens, told in tiles, charts and tables.

import * as charts from "./charts.js";
import { ask, events, keep, key, refusal } from "./service.js";
import { cancel, hold, openLimits } from "./steering.js";
import { at, bars, button, made, pill, write } from "./page.js";
import { bytes, clock, number, percent, say, seconds, speak, switchLanguage } from "./text.js";
import "./playground.js";

/** Milliseconds before the stream is opened again. */
const AGAIN = 2000;
const MOST_BARS = 8;

let now = null;
let stream = new AbortController();

// -- tiles

function tiles({ lanes, sample, hour }) {
  const main = lanes[0];
  const isPaced = main.rpm !== null;
  write("used", isPaced ? percent(main.used) : "–");
  at("used-meter").value = isPaced ? main.used : 0;
  write("used-note", isPaced ? `${number(main.used * main.rpm, 1)} ${say("of")} ${number(main.rpm, 1)} ${say("a-minute")}` : say("no-pace"));
  write("waiting", number(main.waiting));
  write("waiting-note", main.eta >= 0.05 ? say("newcomer", { t: seconds(main.eta) }) : say("at-once"));
  write("flying", number(main.in_flight));
  write("flying-note", main.allowed === null ? say("no-limit") : say("of-places", { n: main.allowed }));
  times("wait", sample.wait50, sample.wait95);
  times("call", sample.call50, sample.call95);
  write("answered", number(hour.ok));
  write("answered-note", `${say("failed")}: ${number(hour.failed)}, ${say("retried")}: ${number(hour.retried)}`);
}

function times(id, half, most) {
  write(id, half === null ? "–" : seconds(half));
  write(`${id}-note`, most === null ? "" : say("p95", { t: seconds(most) }));
  at(id).title = say("median");
}

function alerts({ lanes }) {
  const told = [];
  for (const lane of lanes) {
    if (lane.trouble) told.push([`${lane.name}: ${lane.trouble}`, "bad"]);
    if (lane.held) told.push([`${lane.name}: ${say("held")}`, ""]);
    if (lane.paused > 0) told.push([`${lane.name}: ${say("paused", { why: lane.reason, t: seconds(lane.paused) })}`, ""]);
  }
  const text = told.map(([words, kind]) => made("p", kind, words));
  at("alerts").replaceChildren(...text);
}

// -- tables

function line({ waiting }) {
  write("line-total", waiting.total ? `${number(waiting.requests.length)} ${say("of")} ${number(waiting.total)}` : "");
  const rows = waiting.requests.map((each) => made("tr", "",
    cell(number(each.place), "num"), cell(each.caller, "text"), cell(each.id, "text wide-only"), cell(each.model, "text wide-only"),
    cell(seconds(each.waited), "num"), cell(each.eta === null ? "–" : seconds(each.eta), "num"),
    made("td", "", button(say("cancel"), () => act(cancel(each.id)))),
  ));
  fill("line", rows, "nobody", 7);
}

function last({ last: requests }) {
  const rows = requests.map((each) => {
    const row = made("tr", each.status === null || each.status >= 400 ? "failed" : "",
      cell(clock(each.at), "wide-only"), cell(each.caller, "text"), cell(each.path, "text wide-only"), cell(each.status ?? say("left"), "num"), cell(story(each), "story"));
    row.title = each.id;
    return row;
  });
  fill("last", rows, "", 5);
}

function story(each) {
  const calls = each.attempts === 0 ? "no-attempt" : each.attempts === 1 ? "attempt" : "attempts";
  const put = { waited: seconds(each.waited), took: seconds(each.took), attempts: say(calls, { n: each.attempts }), error: each.error };
  return say(each.status === null ? "story-left" : each.error ? "story-failed" : "story-told", put);
}

function cell(text, className = "") {
  const element = made("td", className, String(text));
  if (className.startsWith("text")) element.title = String(text);
  return element;
}

function fill(id, rows, empty, width) {
  const none = made("td", "empty", empty ? say(empty) : "–");
  none.colSpan = width;
  const body = at(id).tBodies[0];
  // A button under the pointer must not be swapped for another one while it is pressed.
  if (!body.matches(":has(button:active)")) body.replaceChildren(...(rows.length ? rows : [made("tr", "", none)]));
}

// -- lanes, callers, jobs

function lanes(told) {
  if (at("lanes").matches(":has(button:active)")) return;
  at("lanes").replaceChildren(...told.lanes.map((lane) => {
    const name = made("p", "row", made("strong", "", lane.name), made("span", "note", lane.connector));
    name.append(
      button(say(lane.held ? "resume" : "pause"), () => act(hold(lane.name, !lane.held))),
      button(say("change"), () => openLimits(lane.name, lane.overrides)),
    );
    const pace = lane.rpm === null ? say("no-pace") : `${number(lane.rpm, 1)} ${say("a-minute")}`;
    const flight = lane.concurrency === null ? say("no-limit") : `${number(lane.allowed)} ${say("of")} ${number(lane.concurrency)}`;
    const facts = [
      `${say("rpm")}: ${pace}`, `${say("concurrency")}: ${flight}`,
      `${say("timeout")}: ${number(lane.timeout, 1)}; ${say("queue_size")}: ${number(lane.size)}`,
    ];
    return made("div", "lane", name, ...facts.map((fact) => made("p", "note", fact)));
  }));
}

function callers(told) {
  const most = told.callers.slice(0, MOST_BARS);
  bars("callers", most.map((each) => ({ name: each.name, value: each.share, most: 1, text: `${percent(each.share)} · ${number(each.waiting)}` })));
}

function statuses(told) {
  const all = Object.entries(told.statuses).sort(([a], [b]) => a.localeCompare(b));
  bars("statuses", all.map(([status, count]) => ({ name: status === "left" ? say("left") : status, value: count, text: number(count), isBad: status >= "400" })));
}

function jobs(told) {
  at("jobs-panel").hidden = told.jobs === null;
  if (told.jobs === null) return;
  const { live, batch, delayed, running, jobs: kept, bytes: room } = told.jobs;
  const facts = { live_jobs: number(live), batch_jobs: number(batch), running: number(running), delayed: number(delayed), kept: number(kept), bytes: bytes(room) };
  at("jobs").replaceChildren(...Object.entries(facts).map(([name, value]) => made("div", "", made("dt", "", say(name)), made("dd", "", value))));
  bars("batches", told.batches.map((each) => ({
    name: each.id, value: each.done + each.failed, most: Math.max(1, each.total), isBad: each.failed > 0,
    text: `${each.state} · ${say("lines", { done: number(each.done + each.failed), total: number(each.total) })}`,
  })));
}

// -- the stream

function show(told) {
  now = told;
  write("app", told.app.name);
  document.title = `${told.lanes[0].waiting ? `(${told.lanes[0].waiting}) ` : ""}${told.app.name}`;
  at("sandbox").hidden = !told.app.sandbox;
  at("replicas").hidden = told.app.replicas < 2;
  write("replicas", `${say("replicas")}: ${number(told.app.replicas)}`);
  const isStopping = told.lanes.some((lane) => lane.stopping);
  pill("link", say(isStopping ? "stopping" : "live"), isStopping ? "warn" : "good");
  for (const part of [tiles, alerts, line, last, lanes, callers, statuses, jobs]) part(told);
}

async function listen() {
  const response = await ask("/dashboard/events", { signal: stream.signal });
  if (response.status === 401 || response.status === 403) {
    pill("link", say("refused"), "bad");
    at("alerts").replaceChildren(made("p", "bad", await refusal(response)));
    return false;
  }
  if (!response.ok) throw new Error(await refusal(response));
  for await (const { event, data } of events(response)) {
    if (event === "history") charts.begin(JSON.parse(data));
    else if (event === "now") {
      const told = JSON.parse(data);
      charts.add(told.sample);
      show(told);
    }
  }
  return true;
}

async function listenForEver() {
  for (;;) {
    const mine = stream;
    let goesOn = true;
    try {
      goesOn = await listen();
    } catch {
      // Whatever broke it: it is opened again.
    }
    if (goesOn && !mine.signal.aborted) pill("link", say("lost"), "bad");
    await new Promise((resolve) => {
      if (goesOn) setTimeout(resolve, AGAIN);
      stream.signal.addEventListener("abort", resolve);
    });
    if (mine.signal.aborted) stream = new AbortController();
  }
}

/** Do it, and tell what is wrong with it. */
async function act(doing) {
  const wrong = await doing;
  if (wrong) at("alerts").prepend(made("p", "bad", wrong));
}

// -- the page's own buttons

function theme(name) {
  document.documentElement.dataset.theme = name;
  charts.draw();
}

at("theme").addEventListener("click", () => {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", name);
  theme(name);
});
at("language").addEventListener("click", () => {
  switchLanguage();
  charts.draw();
  if (now) show(now);
});
at("key").addEventListener("click", () => {
  at("key-input").value = key();
  at("key-dialog").showModal();
});
at("key-dialog").addEventListener("close", () => {
  const answer = at("key-dialog").returnValue;
  if (!answer) return;
  keep(answer === "save" ? at("key-input").value.trim() : "");
  at("key-input").value = "";
  stream.abort();
});

const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (isDark ? "dark" : "light");
speak();
listenForEver();
