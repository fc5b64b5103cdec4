// What matters most, in one glance: numbers, and what is wrong.

import { at, listed, made, tell, write } from "./page.js";
import { moment, number, percent, say, seconds } from "./text.js";

export function tiles({ lanes, sample, hour }) {
  const main = lanes[0];
  const isPaced = main.rpm !== null && main.used !== null;
  write("used", isPaced ? percent(main.used) : "–");
  at("used-meter").value = isPaced ? main.used : 0;
  write("used-note", isPaced ? say("of-rate", { n: number(main.used * main.rpm, 1), rpm: number(main.rpm, 1) }) : say("no-pace"));
  write("waiting", number(sample.waiting));
  write("waiting-note", newcomer(main));
  write("flying", number(sample.in_flight));
  const isBound = lanes.every((lane) => lane.allowed !== null);
  write("flying-note", isBound ? say("of-allowed", { n: number(lanes.reduce((sum, lane) => sum + lane.allowed, 0)) }) : say("no-limit"));
  times("wait", sample.wait50, sample.wait95);
  times("call", sample.call50, sample.call95);
  write("answered", number(hour.ok));
  write("answered-note", `${say("failed")}: ${number(hour.failed)}, ${say("retried")}: ${number(hour.retried)}`);
}

function newcomer({ eta }) {
  if (eta === null) return say("held");
  return eta >= 0.05 ? say("newcomer", { t: seconds(eta) }) : say("at-once");
}

function times(id, half, most) {
  write(id, half === null ? "–" : seconds(half));
  write(`${id}-note`, most === null ? "" : say("p95", { t: seconds(most) }));
  at(id).title = say("median");
}

export function alerts({ lanes }) {
  const told = [];
  for (const { name, trouble, held, paused, reason } of lanes) {
    if (trouble) told.push([`${name}: ${trouble}`, "bad"]);
    if (held) told.push([`${name}: ${say("held-since", { by: held.by.replace(" at ", ", "), t: moment(held.since) })}`, ""]);
    if (reason) told.push([`${name}: ${paused ? say("paused", { why: say(reason), t: seconds(paused) }) : say(reason)}`, ""]);
  }
  listed(at("alerts"), told.map(([text, kind], place) => ({ text, kind, place })), ({ place }) => String(place), () => made("p"), (line, { text, kind }) => {
    line.className = kind;
    tell(line, text);
  });
}

/** What was asked for and went wrong: it stays until something else is asked for. */
export function wrong(text) {
  at("wrong").hidden = !text;
  write("wrong", text);
}
