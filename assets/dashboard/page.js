// Making and filling elements. All that comes from outside goes in as text, never as HTML.

export const at = (id) => document.getElementById(id);

/** An element with its class, its text or its children. */
export function made(name, className = "", ...inside) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...inside);
  return element;
}

export function button(text, told) {
  const element = made("button", "small", text);
  element.type = "button";
  element.addEventListener("click", told);
  return element;
}

export function write(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

export function pill(id, text, kind = "") {
  write(id, text);
  at(id).className = `pill ${kind}`;
}

/** Bars of one list: how much of the most each is. */
export function bars(id, entries) {
  const most = Math.max(1, ...entries.map((entry) => entry.most ?? entry.value));
  at(id).replaceChildren(...entries.map((entry) => {
    const progress = made("progress");
    progress.max = entry.most ?? most;
    progress.value = entry.value;
    const name = made("span", "", entry.name);
    name.title = entry.name;
    return made("div", entry.isBad ? "bar bad" : "bar", name, progress, made("span", "", entry.text));
  }));
}
