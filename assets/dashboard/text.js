// What the page says, in its two languages. A key that is missing in one is a defect (tests look for it).

import { browser } from "./memory.js";

const WORDS = {
  en: {
    connecting: "connecting…", live: "live", lost: "no connection, trying again…", refused: "a key is needed", stopping: "stopping",
    sandbox: "sandbox: answers of the emulator", key: "Key", theme: "Light or dark", now: "Now", "other-language": "По-русски",
    used: "Share of the paid rate used", waiting: "Waiting", flying: "In flight", wait: "Wait in line", call: "The API's answer", answered: "Answered (hour)",
    "no-pace": "no pacing is set", "of-rate": "{n} of {rpm} a minute", "of-allowed": "of {n} allowed", newcomer: "a newcomer is sent in {t}", "at-once": "a newcomer is sent at once",
    "no-limit": "no limit", median: "half of them, in the last minute", p95: "95 %: {t}", failed: "failed", retried: "tried again",
    "chart-used": "Share of the paid rate, %", "chart-line": "Waiting and in flight", "chart-times": "Seconds: wait and answer (95 %)", "chart-answers": "A second: answered, failed, tried again",
    "line-used": "used", "line-answered": "answered",
    line: "Waiting now", place: "Place", caller: "Caller", id: "Id", request: "Request", model: "Model", priority: "Priority", waited: "Waited", eta: "Sent in", cancel: "Cancel", nobody: "Nobody waits.",
    high: "high", normal: "normal", low: "low", batch: "batch",
    lanes: "Accounts and limits", lane: "Lane", limits: "Limits", change: "Limits…", pause: "Pause", resume: "Resume", held: "held by the operator", "held-since": "held by the operator since {t} ({by})", paused: "{why}, paused {t} more",
    "upstream 429": "upstream 429", "token 429": "429 for an access token", "429 elsewhere": "429 in another replica",
    pace: "Pace", "per-minute": "{n} a minute", "in-use": "{share} used", "of-allowed-now": "{n} of {allowed} allowed", taught: "so the API's 429s taught; {set}", set: "{n} are set", "no-limit-set": "no limit is set",
    "of-places": "{n} of {size} places", tokens: "Tokens (hour)", "tokens-told": "{asked} asked, {out} answered", balance: "Left at the API",
    rpm: "Calls a minute", concurrency: "Calls in flight", timeout: "Seconds a call", queue_size: "Places in line", "as-set": "as set: {n}",
    "limits-why": "Empty: back to the setting. 0 for calls: no limit. It holds at once, in all replicas, and after a restart.", apply: "Apply", close: "Close", save: "Save", forget: "Forget",
    "hold-why": "Nothing is sent until somebody resumes it, not even after a restart. Callers wait, and fail only by their own deadline.", "hold-effect": "Now {n} wait. {flying} are in flight, and end as ever.", hold: "Yes, hold it",
    "effect-clears": "the line of {n} clears in {t}", "effect-now": "{t} as it is now", "effect-held": "held: nothing is sent until it is resumed", "effect-late": "too late for {n} of them",
    "effect-flying": "{n} more are in flight than may be: no call begins until they have ended", "effect-full": "newcomers get 429 until fewer than {n} wait",
    last: "Last requests", "nothing-yet": "Nothing yet.", time: "Time", status: "Status", story: "Story", callers: "Who uses it (5 minutes)", statuses: "Statuses (hour)", left: "left", "n-waiting": "{n} waiting",
    "story-told": "received, waited {waited}, {attempts}, answered after {took}", "story-left": "received, waited {waited}, its caller left after {took}", "story-failed": "received, waited {waited}, {attempts}, {error} after {took}",
    attempt: "one call", attempts: "{n} calls", "no-attempt": "no call",
    replicas: "Replicas", replica: "Replica", sent: "{n} calls in the last minute", share: "Of the rate", seen: "Seen", "this-one": "this one", ago: "{t} ago",
    jobs: "Jobs and batches", live_jobs: "queued", batch_jobs: "queued, batch", delayed: "to be tried again", running: "under way", kept: "kept", bytes: "room taken", lines: "{done} of {total}",
    validating: "being checked", in_progress: "under way", finalizing: "almost done", completed: "done", expired: "too late", cancelling: "being cancelled", cancelled: "cancelled",
    playground: "Playground: a chat through the line", question: "Ask something", "model-hint": "model (as set)", send: "Send", leave: "Stop",
    "in-line": "place {n} in line, about {t}", "in-line-held": "place {n} in line, which the operator holds: nothing is sent until it is resumed", "in-flight": "in flight…", streaming: "answering…", done: "{by}waited {waited}, answered in {took}", gone: "stopped",
    "key-why": "The operator's key (ADMIN_API_KEY). It stays in this tab and is forgotten with it.",
    "no-key": "This is shown to the operator alone: press Key above and enter ADMIN_API_KEY. If none is set, set one and restart the service.",
    "wrong-key": "This is not the operator's key: press Key above and enter ADMIN_API_KEY.",
    "the-service": "{name} (the service itself)", anybody: "{name} (all, without keys)",
    internal_error: "a fault of this service", bad_request: "a wrong request", unauthorized: "no key", key_refused: "a wrong key", pass_expired: "its token expired",
    passed_malformed: "a malformed credential", passing_off: "credentials of callers are not taken", no_account: "no account for it", forbidden: "not allowed", not_found: "not found",
    model_not_found: "no such model", method_not_allowed: "a wrong method", body_too_large: "too large a body", attachment_too_large: "too large a file", unsupported_media: "a file of a wrong type",
    line_full: "the line was full", wait_too_long: "the wait would be too long", deadline_expired: "its deadline came", answer_pending: "its deadline came, the answer is still to come",
    limits_unavailable: "Redis is away", lanes_full: "too many accounts", idempotency_key_reused: "an Idempotency-Key for two requests", job_not_over: "the job is not over", no_answer: "the answer is gone",
    claim_over: "another one took the job", jobs_off: "jobs are off", jobs_full: "no room for jobs", jobs_unavailable: "the store of jobs is away", upstream_error: "an error of the API",
    credential_refused: "the API refused the credential", passed_refused: "the API refused the caller's credential", upstream_timeout: "the API was too slow",
  },
  ru: {
    connecting: "соединение…", live: "на связи", lost: "нет связи, пробуем снова…", refused: "нужен ключ", stopping: "останавливается",
    sandbox: "песочница: отвечает эмулятор", key: "Ключ", theme: "Светлая или тёмная", now: "Сейчас", "other-language": "In English",
    used: "Доля оплаченной скорости в деле", waiting: "Ждут", flying: "В полёте", wait: "Ожидание в очереди", call: "Ответ API", answered: "Отвечено (час)",
    "no-pace": "темп не ограничен", "of-rate": "{n} из {rpm} в минуту", "of-allowed": "разрешено {n}", newcomer: "новый уйдёт через {t}", "at-once": "новый уйдёт сразу",
    "no-limit": "без ограничения", median: "половина, за последнюю минуту", p95: "95 %: {t}", failed: "неудачно", retried: "повторов",
    "chart-used": "Доля оплаченной скорости, %", "chart-line": "Ждут и в полёте", "chart-times": "Секунды: ожидание и ответ (95 %)", "chart-answers": "В секунду: отвечено, неудачно, повторов",
    "line-used": "в деле", "line-answered": "отвечено",
    line: "Ждут сейчас", place: "Место", caller: "Клиент", id: "Номер", request: "Запрос", model: "Модель", priority: "Приоритет", waited: "Ждёт", eta: "Уйдёт через", cancel: "Отменить", nobody: "Никто не ждёт.",
    high: "высокий", normal: "обычный", low: "низкий", batch: "пакет",
    lanes: "Счета и пределы", lane: "Линия", limits: "Пределы", change: "Пределы…", pause: "Пауза", resume: "Продолжить", held: "остановлено оператором", "held-since": "остановлено оператором, с {t} ({by})", paused: "{why}, пауза ещё {t}",
    "upstream 429": "API ответил 429", "token 429": "429 на запрос токена", "429 elsewhere": "429 у другой реплики",
    pace: "Темп", "per-minute": "{n} в минуту", "in-use": "в деле {share}", "of-allowed-now": "{n}, разрешено {allowed}", taught: "так научили ответы 429 от API; {set}", set: "задано {n}", "no-limit-set": "предел не задан",
    "of-places": "{n}, мест {size}", tokens: "Токены (час)", "tokens-told": "в запросах {asked}, в ответах {out}", balance: "Осталось у API",
    rpm: "Вызовов в минуту", concurrency: "Вызовов в полёте", timeout: "Секунд на вызов", queue_size: "Мест в очереди", "as-set": "задано: {n}",
    "limits-why": "Пусто — как в настройке. 0 для вызовов — без ограничения. Действует сразу, во всех репликах и после перезапуска.", apply: "Применить", close: "Закрыть", save: "Сохранить", forget: "Забыть",
    "hold-why": "Ничего не уходит, пока не продолжат, даже после перезапуска. Клиенты ждут, и отказ получат только те, у кого выйдет срок.", "hold-effect": "Сейчас ждут: {n}. В полёте: {flying}, они закончатся как обычно.", hold: "Да, остановить",
    "effect-clears": "очередь из {n} уйдёт за {t}", "effect-now": "сейчас — за {t}", "effect-held": "остановлено: ничего не уходит, пока не продолжат", "effect-late": "из них {n} не дождутся",
    "effect-flying": "в полёте на {n} больше, чем можно: новых вызовов нет, пока они не закончатся", "effect-full": "новые получают 429, пока ждут не меньше {n}",
    last: "Последние запросы", "nothing-yet": "Пока ничего.", time: "Время", status: "Статус", story: "История", callers: "Кто пользуется (5 минут)", statuses: "Статусы (час)", left: "ушёл", "n-waiting": "ждут: {n}",
    "story-told": "пришёл, ждал {waited}, {attempts}, ответ через {took}", "story-left": "пришёл, ждал {waited}, клиент ушёл через {took}", "story-failed": "пришёл, ждал {waited}, {attempts}, {error} через {took}",
    attempt: "один вызов", attempts: "вызовов: {n}", "no-attempt": "без вызова",
    replicas: "Реплики", replica: "Реплика", sent: "вызовов за последнюю минуту: {n}", share: "Доля скорости", seen: "На связи", "this-one": "эта", ago: "{t} назад",
    jobs: "Задания и пакеты", live_jobs: "в очереди", batch_jobs: "в очереди, пакеты", delayed: "ждут повтора", running: "выполняются", kept: "хранится", bytes: "занято", lines: "{done} из {total}",
    validating: "проверяется", in_progress: "выполняется", finalizing: "почти готов", completed: "готов", expired: "не успел", cancelling: "отменяется", cancelled: "отменён",
    playground: "Проба: чат через очередь", question: "Спросите что-нибудь", "model-hint": "модель (как задана)", send: "Отправить", leave: "Остановить",
    "in-line": "место {n} в очереди, около {t}", "in-line-held": "место {n} в очереди, а она остановлена оператором: ничего не уходит, пока не продолжат", "in-flight": "в полёте…", streaming: "отвечает…", done: "{by}ждали {waited}, ответ за {took}", gone: "остановлено",
    "key-why": "Ключ оператора (ADMIN_API_KEY). Он остаётся в этой вкладке и забывается вместе с ней.",
    "no-key": "Это видит только оператор: нажмите «Ключ» вверху и введите ADMIN_API_KEY. Если он не задан, задайте его и перезапустите службу.",
    "wrong-key": "Это не ключ оператора: нажмите «Ключ» вверху и введите ADMIN_API_KEY.",
    "the-service": "{name} (сама служба)", anybody: "{name} (все, ключей нет)",
    internal_error: "сбой этой службы", bad_request: "неверный запрос", unauthorized: "нет ключа", key_refused: "ключ не подходит", pass_expired: "токен истёк",
    passed_malformed: "испорченный ключ доступа", passing_off: "ключи доступа клиентов не принимаются", no_account: "нет счёта для него", forbidden: "запрещено", not_found: "не найдено",
    model_not_found: "нет такой модели", method_not_allowed: "не тот метод", body_too_large: "слишком большой запрос", attachment_too_large: "слишком большой файл", unsupported_media: "файл не того типа",
    line_full: "очередь полна", wait_too_long: "ждать пришлось бы слишком долго", deadline_expired: "вышел срок", answer_pending: "вышел срок, ответ ещё будет",
    limits_unavailable: "Redis недоступен", lanes_full: "слишком много счетов", idempotency_key_reused: "один Idempotency-Key у двух запросов", job_not_over: "задание не закончено", no_answer: "ответа больше нет",
    claim_over: "задание взял другой", jobs_off: "задания выключены", jobs_full: "нет места для заданий", jobs_unavailable: "хранилище заданий недоступно", upstream_error: "API ответил ошибкой",
    credential_refused: "API не принял ключ", passed_refused: "API не принял ключ клиента", upstream_timeout: "API не успел ответить",
  },
};

const kept = browser.get("language");
let language = kept && kept in WORDS ? kept : navigator.language.startsWith("ru") ? "ru" : "en";

/** What is said here, with what is to be put into it. */
export function say(key, put = {}) {
  const text = WORDS[language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => put[name] ?? "");
}

/** Who asks. Two names are no caller's own. */
export function callerNamed(name) {
  if (name === "proxy") return say("the-service", { name });
  return name === "*" ? say("anybody", { name }) : name;
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
  browser.put("language", language);
  speak();
}

// -- numbers as people read them

/** Between a number and its unit no line ends. */
const GAP = "\u00a0";

export function number(value, digits = 0) {
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

export function percent(value) {
  return `${number(value * 100, value < 0.1 ? 1 : 0)} %`;
}

/** Seconds, shortly: 0.25 s, 12 s, 4 min 48 s, 2 h 5 min. */
export function seconds(value) {
  const [ms, s, min, h] = language === "ru" ? ["мс", "с", "мин", "ч"] : ["ms", "s", "min", "h"];
  const whole = Math.round(value);
  if (value < 0.9995) return `${number(value * 1000)}${GAP}${ms}`;
  if (value < 59.5) return `${number(value, value < 9.95 ? 1 : 0)}${GAP}${s}`;
  if (whole < 3600) return `${Math.floor(whole / 60)}${GAP}${min} ${whole % 60}${GAP}${s}`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)}${GAP}${h} ${minutes % 60}${GAP}${min}`;
}

export function bytes(value) {
  const units = language === "ru" ? ["Б", "КБ", "МБ", "ГБ"] : ["B", "KB", "MB", "GB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${number(value, value < 10 ? 1 : 0)}${GAP}${units[unit]}`;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString(language);
}

/** A time of today, or of another day with its date. */
export function moment(at) {
  const isToday = new Date(at * 1000).toDateString() === new Date().toDateString();
  return isToday ? clock(at) : new Date(at * 1000).toLocaleString(language);
}
