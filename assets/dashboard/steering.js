// What an operator can do: change limits, hold and resume a lane, cancel a request.

import { at } from "./page.js";
import { ask, refusal } from "./service.js";
import { number, say, seconds } from "./text.js";

const FIELDS = ["rpm", "concurrency", "timeout", "queue_size"];
const JSON_TYPE = { "Content-Type": "application/json" };

let lane = "";
/** Which of the questions is the last one: answers to earlier ones are out of date. */
let asked = 0;

async function patch(change, isPreview = false) {
  return ask(isPreview ? "/limits?preview=true" : "/limits", { method: "PATCH", headers: JSON_TYPE, body: JSON.stringify(change) });
}

/** What is wrong with an answer, "" if nothing is. */
async function complaint(asking, isFine = (response) => response.ok) {
  try {
    const response = await asking;
    return isFine(response) ? "" : await refusal(response);
  } catch {
    return say("lost");
  }
}

/** Hold a lane, or let it go on. Returns what is wrong, "" if nothing is. */
export async function hold(name, paused) {
  return complaint(patch({ lane: name, paused }));
}

/** Tell what it means to hold a lane, and ask once. Whether the answer is yes. */
export function agreed({ name, waiting, in_flight: flying }) {
  const dialog = at("hold-dialog");
  at("hold-lane").textContent = name;
  at("hold-effect").textContent = say("hold-effect", { n: number(waiting), flying: number(flying) });
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "hold"), { once: true });
  });
}

/** Take a request out of the line, or end its call; the same of one that is over by now. */
export async function cancel(id) {
  const asking = ask(`/queue/${encodeURIComponent(id)}`, { method: "DELETE" });
  return complaint(asking, (response) => response.ok || response.status === 404);
}

/** Show the limits of a lane: those that were changed at run time, and as a hint what the settings say. */
export function openLimits({ name, overrides, settings }) {
  lane = name;
  asked += 1;
  at("limits-lane").textContent = name;
  for (const field of FIELDS) {
    const input = at("limits-form").elements[field];
    input.value = overrides[field] ?? "";
    input.placeholder = say("as-set", { n: number(settings[field], 1) });
  }
  tell("");
  at("limits-dialog").showModal();
}

/** What the form asks for. An empty field means: as the setting has it. */
function change() {
  const wanted = { lane };
  for (const field of FIELDS) {
    const text = at("limits-form").elements[field].value.trim().replace(",", ".");
    wanted[field] = text === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text;
  }
  return wanted;
}

function tell(text, isBad = false) {
  at("effect").textContent = text;
  at("effect").className = isBad ? "bad" : "";
}

/** The effect of a change in words. */
function words({ waiting, in_flight: flying, before, after }) {
  const isNews = waiting && before.clears_in !== null && before.clears_in !== after.clears_in;
  const told = [cleared(waiting, after) + (isNews ? ` (${say("effect-now", { t: seconds(before.clears_in) })})` : "")];
  if (after.late) told.push(say("effect-late", { n: number(after.late) }));
  if (after.concurrency && flying > after.concurrency) told.push(say("effect-flying", { n: number(flying - after.concurrency) }));
  if (waiting >= after.queue_size) told.push(say("effect-full", { n: number(after.queue_size) }));
  return told.join("; ");
}

function cleared(waiting, { clears_in: time }) {
  if (time === null) return say("effect-held");
  return waiting ? say("effect-clears", { n: number(waiting), t: seconds(time) }) : say("nobody");
}

/** Ask for a change, or for its effect, and tell it. Whether it was not refused. */
async function propose(isPreview) {
  const number = (asked += 1);
  let told = "";
  const refused = await complaint(patch(change(), isPreview).then(async (response) => {
    if (response.ok) told = words((await response.json()).effect);
    return response;
  }));
  if (number === asked) tell(refused || told, Boolean(refused));
  return !refused;
}

at("limits-form").addEventListener("input", () => propose(true));

at("limits-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await propose(false)) at("limits-dialog").close();
});

at("limits-close").addEventListener("click", () => at("limits-dialog").close());
