// What the page remembers. A browser that keeps nothing for pages is no reason to fail: then it lasts as long as the page.

/** One of the browser's stores, if it lets us and has room. */
function memory(name) {
  const instead = new Map();
  const tried = (use) => {
    try {
      return use(window[name]);
    } catch {
      return null;
    }
  };
  return {
    get: (key) => instead.get(key) ?? tried((store) => store.getItem(key)),
    put(key, word) {
      instead.set(key, word);
      tried((store) => store.setItem(key, word));
    },
    forget(key) {
      instead.delete(key);
      tried((store) => store.removeItem(key));
    },
  };
}

/** Of this browser, and of this tab alone. */
export const browser = memory("localStorage");
export const tab = memory("sessionStorage");
