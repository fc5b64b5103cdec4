// What an operator can do: change limits, hold and resume a lane, cancel a request.

import { ask, refusal } from "./service.js";
import { at } from "./page.js";

const FIELDS = ["rpm", "concurrency", "timeout", "queue_size"];
const JSON_TYPE = { "Content-Type": "application/json" };

let lane = "";
let asked = 0;

async function patch(change, isPreview = false) {
  return ask(isPreview ? "/limits?preview=true" : "/limits", { method: "PATCH", headers: JSON_TYPE, body: JSON.stringify(change) });
}

/** Hold a lane, or let it go on. Returns what is wrong, "" if nothing is. */
export async function hold(name, paused) {
  const response = await patch({ lane: name, paused });
  return response.ok ? "" : refusal(response);
}

/** Take a request out of the line, or end its call. */
export async function cancel(id) {
  const response = await ask(`/queue/${encodeURIComponent(id)}`, { method: "DELETE" });
  return response.ok || response.status === 404 ? "" : refusal(response);
}

/** Show the limits of a lane; `overrides` are those that were changed at run time. */
export function openLimits(name, overrides) {
  lane = name;
  at("limits-lane").textContent = name;
  for (const field of FIELDS) at("limits-form").elements[field].value = overrides[field] ?? "";
  effect("");
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

function effect(text, isBad = false) {
  at("effect").textContent = text;
  at("effect").className = isBad ? "bad" : "";
}

async function tell(response, number) {
  const isBad = !response.ok;
  const text = isBad ? await refusal(response) : (await response.json()).effect.text;
  if (number === asked) effect(text, isBad);
  return !isBad;
}

at("limits-form").addEventListener("input", async () => {
  const number = (asked += 1);
  await tell(await patch(change(), true), number);
});

at("limits-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const number = (asked += 1);
  if (await tell(await patch(change()), number)) at("limits-dialog").close();
});

at("limits-close").addEventListener("click", () => at("limits-dialog").close());
