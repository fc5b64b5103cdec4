// The accounts: what holds, what is used of it, what is left, and the operator's two buttons.

import { at, button, facts, listed, made, tell } from "./page.js";
import { agreed, hold, openLimits } from "./steering.js";
import { number, percent, say } from "./text.js";
import { wrong } from "./tiles.js";

export function lanes({ lanes: told }) {
  listed(at("lanes"), told, ({ name }) => name, blank, fill);
}

function blank() {
  return made("div", "lane", made("p", "row", made("strong"), made("span", "note"), button(), button()), made("dl", "note"));
}

function fill(element, lane) {
  const [head, list] = element.children;
  const [name, connector, pause, change] = head.children;
  tell(name, lane.name);
  tell(connector, lane.connector);
  tell(pause, say(lane.held ? "resume" : "pause"));
  pause.onclick = async () => {
    if (lane.held || (await agreed(lane))) wrong(await hold(lane.name, !lane.held));
  };
  tell(change, say("change"));
  change.onclick = () => openLimits(lane);
  facts(list, [
    [say("pace"), pace(lane)],
    [say("flying"), flight(lane)],
    [say("timeout"), number(lane.timeout, 1)],
    [say("waiting"), say("of-places", { n: number(lane.waiting), size: number(lane.size) })],
    [say("tokens"), tokens(lane.tokens)],
    [say("balance"), balance(lane.balance)],
  ]);
}

function pace({ rpm, used }) {
  if (rpm === null) return say("no-pace");
  const told = say("per-minute", { n: number(rpm, 1) });
  return used === null ? told : `${told}, ${say("in-use", { share: percent(used) })}`;
}

/** What 429s have taught is told where it differs from what is set. */
function flight({ in_flight: flying, allowed, concurrency }) {
  if (allowed === null) return `${number(flying)}, ${say("no-limit")}`;
  const told = say("of-allowed-now", { n: number(flying), allowed: number(allowed) });
  if (allowed === concurrency) return told;
  const set = concurrency === null ? say("no-limit-set") : say("set", { n: number(concurrency) });
  return `${told}: ${say("taught", { set })}`;
}

function tokens({ in: asked, out }) {
  return asked || out ? say("tokens-told", { asked: number(asked ?? 0), out: number(out ?? 0) }) : "";
}

function balance(left) {
  return Object.entries(left).map(([name, value]) => `${name}: ${typeof value === "number" ? number(value) : value}`).join(", ");
}
