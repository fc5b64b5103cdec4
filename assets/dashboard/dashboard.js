// The page: one stream of what happens, told in tiles, charts and tables; and the page's own buttons.

import * as charts from "./charts.js";
import { lanes } from "./lanes.js";
import { browser } from "./memory.js";
import { at, made, pill, write } from "./page.js";
import { follow } from "./playground.js";
import { keep, key } from "./service.js";
import { callers, jobs, statuses } from "./shares.js";
import { again, listen } from "./stream.js";
import { last, line, replicas } from "./tables.js";
import { say, speak, switchLanguage } from "./text.js";
import { alerts, tiles } from "./tiles.js";

const PARTS = [tiles, alerts, line, last, lanes, replicas, callers, statuses, jobs, follow];

let now = null;

function heard(event, told) {
  if (event === "history") charts.begin(told);
  else if (event === "now") {
    charts.add(told.sample);
    show(told);
  }
}

function show(told) {
  now = told;
  write("app", told.app.name);
  document.title = `${told.sample.waiting ? `(${told.sample.waiting}) ` : ""}${told.app.name}`;
  at("sandbox").hidden = !told.app.sandbox;
  const isStopping = told.lanes.some((lane) => lane.stopping);
  pill("link", say(isStopping ? "stopping" : "live"), isStopping ? "warn" : "good");
  for (const part of PARTS) part(told);
}

function refused(why) {
  now = null;
  pill("link", say("refused"), "bad");
  at("alerts").replaceChildren(made("p", "bad", why));
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  charts.draw();
}

at("theme").addEventListener("click", () => {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  browser.put("theme", name);
  theme(name);
});

at("language").addEventListener("click", () => {
  switchLanguage();
  charts.draw();
  // Why nothing is shown was said in the other language: it is asked for again.
  if (now) show(now);
  else again();
});

at("key").addEventListener("click", () => {
  at("key-input").value = key();
  at("key-dialog").returnValue = "";
  at("key-dialog").showModal();
});

at("key-dialog").addEventListener("close", () => {
  const answer = at("key-dialog").returnValue;
  const word = at("key-input").value.trim();
  at("key-input").value = "";
  if (!answer) return;
  keep(answer === "save" ? word : "");
  // What the page has told is not for whoever has no key.
  if (answer === "forget") location.reload();
  else again();
});

const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = browser.get("theme") ?? (isDark ? "dark" : "light");
speak();
listen(heard, () => pill("link", say("lost"), "bad"), refused);
