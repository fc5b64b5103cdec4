// What the page says, in its two languages. A key that is missing in one is a defect (tests look for it).

const WORDS = {
  en: {
    connecting: "connecting…", live: "live", lost: "no connection, trying again…", refused: "a key is needed", stopping: "stopping",
    sandbox: "sandbox: answers of the emulator", replicas: "busy replicas", key: "Key", theme: "Light or dark", now: "Now",
    used: "Share of the paid rate used", waiting: "Waiting", flying: "In flight", wait: "Wait in line", call: "The API's answer", answered: "Answered",
    "no-pace": "no pacing is set", "a-minute": "a minute", "of": "of", "of-places": "of {n} places", "newcomer": "a newcomer is sent in {t}", "at-once": "a newcomer is sent at once",
    "no-limit": "no limit", median: "half of them, in the last minute", p95: "95 %: {t}", "last-hour": "in the last hour", failed: "failed", retried: "tried again",
    "chart-used": "Share of the paid rate, %", "chart-line": "Waiting and in flight", "chart-times": "Seconds: wait and answer (95 %)", "chart-answers": "A second: answered, failed, tried again",
    line: "Waiting now", place: "Place", caller: "Caller", request: "Request", model: "Model", waited: "Waited", eta: "Sent in", cancel: "Cancel", "nobody": "Nobody waits.",
    lanes: "Lanes and limits", limits: "Limits", change: "Limits…", pause: "Pause", resume: "Resume", held: "held by the operator", paused: "{why}, paused {t} more",
    rpm: "Calls a minute", concurrency: "Calls in flight", timeout: "Seconds a call", queue_size: "Places in line", "as-set": "as set",
    "limits-why": "Empty: back to the setting. 0: no limit. It holds at once, in all replicas, and after a restart.", apply: "Apply", close: "Close", save: "Save", forget: "Forget",
    last: "Last requests", time: "Time", status: "Status", story: "Story", callers: "Who uses it (5 minutes)", statuses: "Statuses (hour)", jobs: "Jobs and batches", left: "left",
    "story-told": "received, waited {waited}, {attempts}, answered after {took}", "story-left": "received, waited {waited}, its caller left after {took}", "story-failed": "received, waited {waited}, {attempts}, {error} after {took}",
    "attempt": "one call", "attempts": "{n} calls", "no-attempt": "no call",
    live_jobs: "queued", batch_jobs: "queued, batch", delayed: "to be tried again", running: "under way", kept: "kept", bytes: "room taken", lines: "{done} of {total}",
    playground: "Playground: a chat through the line", question: "Ask something", "model-hint": "model (as set)", send: "Send", leave: "Stop",
    "in-line": "place {n} in line, about {t}", "in-flight": "in flight…", streaming: "answering…", done: "waited {waited}, answered in {took}", gone: "stopped",
    "key-why": "The operator's key (ADMIN_API_KEY). It stays in this tab and is forgotten with it.",
  },
  ru: {
    connecting: "соединение…", live: "на связи", lost: "нет связи, пробуем снова…", refused: "нужен ключ", stopping: "останавливается",
    sandbox: "песочница: отвечает эмулятор", replicas: "занятых реплик", key: "Ключ", theme: "Светлая или тёмная", now: "Сейчас",
    used: "Доля оплаченной скорости в деле", waiting: "Ждут", flying: "В полёте", wait: "Ожидание в очереди", call: "Ответ API", answered: "Отвечено",
    "no-pace": "темп не ограничен", "a-minute": "в минуту", "of": "из", "of-places": "из {n} мест", "newcomer": "новый уйдёт через {t}", "at-once": "новый уйдёт сразу",
    "no-limit": "без ограничения", median: "половина, за последнюю минуту", p95: "95 %: {t}", "last-hour": "за последний час", failed: "неудачно", retried: "повторов",
    "chart-used": "Доля оплаченной скорости, %", "chart-line": "Ждут и в полёте", "chart-times": "Секунды: ожидание и ответ (95 %)", "chart-answers": "В секунду: отвечено, неудачно, повторов",
    line: "Ждут сейчас", place: "Место", caller: "Клиент", request: "Запрос", model: "Модель", waited: "Ждёт", eta: "Уйдёт через", cancel: "Отменить", "nobody": "Никто не ждёт.",
    lanes: "Линии и пределы", limits: "Пределы", change: "Пределы…", pause: "Пауза", resume: "Продолжить", held: "остановлено оператором", paused: "{why}, пауза ещё {t}",
    rpm: "Вызовов в минуту", concurrency: "Вызовов в полёте", timeout: "Секунд на вызов", queue_size: "Мест в очереди", "as-set": "как задано",
    "limits-why": "Пусто — как в настройке. 0 — без ограничения. Действует сразу, во всех репликах и после перезапуска.", apply: "Применить", close: "Закрыть", save: "Сохранить", forget: "Забыть",
    last: "Последние запросы", time: "Время", status: "Статус", story: "История", callers: "Кто пользуется (5 минут)", statuses: "Статусы (час)", jobs: "Задания и пакеты", left: "ушёл",
    "story-told": "пришёл, ждал {waited}, {attempts}, ответ через {took}", "story-left": "пришёл, ждал {waited}, клиент ушёл через {took}", "story-failed": "пришёл, ждал {waited}, {attempts}, {error} через {took}",
    "attempt": "один вызов", "attempts": "вызовов: {n}", "no-attempt": "без вызова",
    live_jobs: "в очереди", batch_jobs: "в очереди, пакеты", delayed: "ждут повтора", running: "выполняются", kept: "хранится", bytes: "занято", lines: "{done} из {total}",
    playground: "Проба: чат через очередь", question: "Спросите что-нибудь", "model-hint": "модель (как задана)", send: "Отправить", leave: "Остановить",
    "in-line": "место {n} в очереди, около {t}", "in-flight": "в полёте…", streaming: "отвечает…", done: "ждали {waited}, ответ за {took}", gone: "остановлено",
    "key-why": "Ключ оператора (ADMIN_API_KEY). Он остаётся в этой вкладке и забывается вместе с ней.",
  },
};

const kept = localStorage.getItem("language");
let language = kept in WORDS ? kept : navigator.language.startsWith("ru") ? "ru" : "en";

/** What is said here, with what is to be put into it. */
export function say(key, put = {}) {
  const text = WORDS[language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => put[name] ?? "");
}

/** Write all that stands in the page itself. */
export function speak() {
  document.documentElement.lang = language;
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = say(each.dataset.text);
  for (const each of document.querySelectorAll("[data-hint]")) each.placeholder = say(each.dataset.hint);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", say(each.dataset.label));
  const other = document.getElementById("language");
  other.textContent = language === "ru" ? "EN" : "RU";
  other.lang = language === "ru" ? "en" : "ru";
}

export function switchLanguage() {
  language = language === "ru" ? "en" : "ru";
  localStorage.setItem("language", language);
  speak();
}

// -- numbers as people read them

export function number(value, digits = 0) {
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

export function percent(value) {
  return `${number(value * 100, value < 0.1 ? 1 : 0)} %`;
}

/** Seconds, shortly: 0.25 s, 12 s, 4 min 48 s, 2 h 5 min. */
export function seconds(value) {
  const [ms, s, min, h] = language === "ru" ? ["мс", "с", "мин", "ч"] : ["ms", "s", "min", "h"];
  if (value < 1) return `${number(value * 1000)} ${ms}`;
  if (value < 60) return `${number(value, value < 10 ? 1 : 0)} ${s}`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} ${min} ${whole % 60} ${s}`;
  return `${Math.floor(whole / 3600)} ${h} ${Math.round((whole % 3600) / 60)} ${min}`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${number(value, value < 10 ? 1 : 0)} ${units[unit]}`;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString(language);
}
