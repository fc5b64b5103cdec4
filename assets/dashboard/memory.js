// What the page remembers. A browser that keeps nothing for pages is no reason to fail: then it lasts as long as the page.

/** One of the browser's stores, if it lets us. */
function memory(name) {
  const instead = new Map();
  const store = () => {
    try {
      return window[name];
    } catch {
      return null;
    }
  };
  return {
    get: (key) => store()?.getItem(key) ?? instead.get(key) ?? null,
    put(key, word) {
      instead.set(key, word);
      store()?.setItem(key, word);
    },
    forget(key) {
      instead.delete(key);
      store()?.removeItem(key);
    },
  };
}

/** Of this browser, and of this tab alone. */
export const browser = memory("localStorage");
export const tab = memory("sessionStorage");
