// The four charts: an hour at most, a point a second, coloured as the page is.

import { number, percent, say } from "./text.js";
import { at } from "./page.js";

const HOUR = 3600;
const CHARTS = {
  "chart-used": { lines: [["used", "--main", "line-used"]], scale: 100, top: 100, value: (v) => percent(v / 100) },
  "chart-line": { lines: [["waiting", "--second", "waiting"], ["in_flight", "--main", "flying"]], value: (v) => number(v) },
  "chart-times": { lines: [["wait95", "--second", "wait"], ["call95", "--third", "call"]], value: (v) => number(v, v < 10 ? 2 : 0) },
  "chart-answers": { lines: [["ok", "--main", "line-answered"], ["failed", "--bad", "failed"], ["retried", "--third", "retried"]], value: (v) => number(v, 1) },
};

let history = { t: [] };
let drawn = {};

export function begin(told) {
  history = told;
  draw();
}

export function add(sample) {
  for (const name of Object.keys(history)) {
    history[name].push(sample[name] ?? null);
    if (history[name].length > HOUR) history[name].shift();
  }
  for (const [id, chart] of Object.entries(drawn)) chart.setData(data(CHARTS[id]));
}

/** Anew: another theme, another language, another width. */
export function draw() {
  for (const chart of Object.values(drawn)) chart.destroy();
  drawn = Object.fromEntries(Object.keys(CHARTS).map((id) => [id, made(id, CHARTS[id])]));
}

function data({ lines, scale = 1 }) {
  return [history.t, ...lines.map(([name]) => (history[name] ?? []).map((v) => (v === null ? null : v * scale)))];
}

function made(id, kind) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui", labelSize: 0 };
  const series = kind.lines.map(([, stroke, key]) => ({
    label: say(key), stroke: colour(stroke), width: 1.5, points: { show: false },
    fill: kind.lines.length === 1 ? `color-mix(in srgb, ${colour(stroke)} 16%, transparent)` : undefined,
    value: (chart, v, number, place) => told(kind, place === null ? chart.data[number].at(-1) : v),
  }));
  const legend = 26;
  return new uPlot({
    width: at(id).clientWidth, height: at(id).clientHeight - legend,
    cursor: { points: { size: 5 }, drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [0, Math.max(kind.top ?? 1, high || 0) * 1.05] } },
    axes: [{ ...axis, space: 70, size: 24, values: (_, marks) => marks.map(time) }, { ...axis, size: 40, values: (_, marks) => marks.map((v) => number(v, 1)) }],
    series: [{}, ...series],
  }, data(kind), at(id));
}

/** What the legend says: where the pointer is; else the last one. */
function told(kind, value) {
  return value === null || value === undefined ? "–" : kind.value(value);
}

/** The axis knows seconds; who reads it wants them only where a mark is not a whole minute. */
function time(at) {
  const told = new Date(at * 1000).toTimeString();
  return told.slice(0, at % 60 ? 8 : 5);
}

let width = 0;
new ResizeObserver(() => {
  if (Math.abs(window.innerWidth - width) > 1) { width = window.innerWidth; draw(); }
}).observe(document.documentElement);
