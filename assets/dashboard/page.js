// Making and filling elements. All that comes from outside goes in as text, never as HTML.

export const at = (id) => document.getElementById(id);

/** An element with its class, its text or its children. */
export function made(name, className = "", ...inside) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...inside);
  return element;
}

export function button() {
  const element = made("button", "small");
  element.type = "button";
  return element;
}

/** Say this in an element, which is left alone if it says so already. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function write(id, text) {
  tell(at(id), text);
}

export function pill(id, text, kind = "") {
  write(id, text);
  at(id).className = `pill ${kind}`;
}

/**
 * Fill `parent` with an element for each entry. Those that are there already stay, so that what has the focus or is
 * pressed is not swapped for another one: `key` tells them apart, `make` makes a new one, `fill` fills it anew.
 */
export function listed(parent, entries, key, make, fill) {
  const known = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  const elements = entries.map((entry) => {
    const name = key(entry);
    const element = known.get(name) ?? make();
    known.delete(name);
    element.dataset.key = name;
    fill(element, entry);
    return element;
  });
  for (const element of [...parent.children]) if (!elements.includes(element)) element.remove();
  elements.forEach((element, place) => {
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
  });
}

/** Rows of a table: `columns` are pairs of a class and of what an entry has there; `also` adds to a row. */
export function rows(id, columns, entries, key, also = () => {}) {
  const make = () => made("tr", "", ...columns.map(([className]) => made("td", className)));
  listed(at(id).tBodies[0], entries, key, make, (row, entry) => {
    columns.forEach(([className, told], place) => {
      const text = told(entry);
      tell(row.cells[place], text);
      if (className.startsWith("text")) row.cells[place].title = text;
    });
    also(row, entry);
  });
}

/** Bars of one list: how much of the most each is. */
export function bars(id, entries) {
  const most = Math.max(1, ...entries.map((entry) => entry.most ?? entry.value));
  const make = () => made("div", "bar", made("span"), made("progress"), made("span"));
  listed(at(id), entries, (entry) => entry.name, make, (bar, entry) => {
    const [name, progress, text] = bar.children;
    bar.classList.toggle("bad", Boolean(entry.isBad));
    progress.max = entry.most ?? most;
    progress.value = entry.value;
    progress.setAttribute("aria-label", entry.name);
    name.title = entry.name;
    tell(name, entry.name);
    tell(text, entry.text);
  });
}

/** Facts of a list of definitions: pairs of a name and what it is; those without are left out. */
export function facts(element, pairs) {
  const make = () => made("div", "", made("dt"), made("dd"));
  const given = pairs.filter(([, fact]) => fact !== "");
  listed(element, given, ([name]) => name, make, (pair, [name, fact]) => {
    tell(pair.children[0], name);
    tell(pair.children[1], fact);
  });
}
