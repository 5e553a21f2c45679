"use strict";
// What has been learnt, and how it is drawn. The other scripts follow in the same element.
const POINTS = 90; // how many a history has
const FEW = 25; // how many a chart has room for, though there are fewer yet
const EVERY = 2000; // milliseconds between two questions
const EVERY_ALL = 5000; // the same when all endpoints are shown
const TOP = 30; // endpoints of each pool that are shown at first
const SVG = "http://www.w3.org/2000/svg";
const REASONS = {
  peer_closed: "c0",
  error: "c0",
  unread_data: "c5",
  incomplete: "c5",
  unhealthy: "c1",
  cancelled: "c1",
  discarded: "c2",
  evicted: "c2",
  idle_time: "c3",
  lifetime: "c3",
};
const asked = {all: false, paused: false, sort: "busiest", match: ""};
const pools = new Map(); // place of the pool -> what is on the page for it
const histories = new Map(); // id of the endpoint, or place of the pool -> its points
const visible = new WeakSet();
const $ = id => document.getElementById(id);
let rounds = 0;
let answeredAt = 0;
let timer = 0;
let running = null;

// ── elements ──

function make(tag, cls = "", ...children) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...children);
  return node;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function color(name) {
  return `var(--${name})`;
}

// ── numbers for people ──

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  for (const [factor, unit] of [
    [1e6, "µs"],
    [1e3, "ms"],
    [1, "s"],
  ]) {
    const number = seconds * factor;
    if (number < 999.5 && (unit !== "s" || number < 99.95))
      return +number.toPrecision(3) + " " + unit;
  }
  return seconds < 5997 ? (seconds / 60).toFixed(1) + " min" : (seconds / 3600).toFixed(1) + " h";
}

function rate(number) {
  if (number === undefined) return "–";
  return number >= 100 ? Math.round(number).toLocaleString("en") : String(+number.toPrecision(2));
}

function count(number) {
  return number.toLocaleString("en");
}

// ── histories: what a snapshot says, and what happened since the one before ──

function learn(key, at, stats) {
  let history = histories.get(key);
  if (!history) histories.set(key, (history = {points: [], last: null}));
  const {last, points} = history;
  const point = {
    at,
    seen: rounds,
    active: stats.active,
    idle: stats.idle,
    waiting: stats.waiting,
    connecting: stats.connecting,
    reasons: {},
  };
  if (stats.wait_time) {
    point.p50 = stats.wait_time.p50;
    point.p99 = stats.wait_time.p99;
  }
  if (last && at > last.at) {
    const per = name => Math.max(0, stats[name] - last.stats[name]) / (at - last.at);
    point.leases = per("acquired");
    point.opened = per("total_created");
    point.closed = per("total_closed");
    for (const [reason, total] of Object.entries(stats.closed_by_reason)) {
      const gone = (total - (last.stats.closed_by_reason[reason] || 0)) / (at - last.at);
      if (gone > 0) point.reasons[reason] = gone;
    }
    if (stats.wait_time) {
      const waits = stats.wait_time.count - last.stats.wait_time.count;
      point.mean = waits > 0 ? (stats.wait_time.total - last.stats.wait_time.total) / waits : 0;
    }
  }
  history.last = {at, stats};
  points.push(point);
  if (points.length > POINTS) points.shift();
  return history;
}

function forgetOld() {
  for (const [key, history] of histories)
    if (rounds - history.points.at(-1).seen > POINTS) histories.delete(key);
}

// ── charts: layers of areas or lines over the last points, newest at the right ──

function chart() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

function draw(svg, points, layers, least = 1, stacked = false) {
  const floor = points.map(() => 0);
  const tops = layers.map(layer =>
    points.map((point, i) => {
      // The first snapshot has no rates: it looks like the second.
      const value = layer.of(point) ?? layer.of(points[i + 1] || {reasons: {}}) ?? 0;
      return stacked ? (floor[i] += value) : value;
    }),
  );
  const max = Math.max(least, ...tops.flat());
  const shown = Math.max(points.length, FEW);
  const x = i => 100 - ((points.length - 1 - i) * 100) / (shown - 1);
  const y = value => 40 - (value * 38) / max;
  layers.forEach((layer, n) => {
    let path = svg.children[n];
    if (!path) svg.append((path = document.createElementNS(SVG, "path")));
    const line = tops[n].map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`);
    if (layer.fill) {
      const under = stacked && n ? tops[n - 1] : null;
      const back = points.map((_, i) => `${x(i).toFixed(1)} ${y(under ? under[i] : 0).toFixed(1)}`);
      path.setAttribute("d", "M" + line.concat(back.reverse()).join("L") + "Z");
      path.style.fill = color(layer.color);
    } else {
      path.setAttribute("d", line.length ? "M" + line.join("L") : "");
      path.style.stroke = color(layer.color);
    }
  });
  while (svg.children.length > layers.length) svg.lastChild.remove();
  return max;
}

const CONNECTIONS = [
  {of: p => p.active, color: "active", fill: true},
  {of: p => p.idle, color: "idle", fill: true},
  {of: p => p.connecting, color: "connecting", fill: true},
];
const WAITING = [{of: p => p.waiting, color: "waiting", fill: true}];
const LEASES = [{of: p => p.leases, color: "active"}];
const TURNOVER = [
  {of: p => p.opened, color: "active"},
  {of: p => p.closed, color: "c1"},
];
const WAITS = [
  {of: p => p.p99, color: "waiting"},
  {of: p => p.p50, color: "active"},
  {of: p => p.mean, color: "c3"},
];

function makeBar() {
  const bar = make("div", "bar");
  for (const state of ["active", "idle", "connecting", "closing"]) {
    const part = make("i");
    part.style.background = color(state);
    bar.append(part);
  }
  return bar;
}

function setBar(bar, stats, limit) {
  const states = [stats.active, stats.idle, stats.connecting, stats.closing];
  const whole = Math.max(
    limit || 0,
    states.reduce((a, b) => a + b),
    1,
  );
  states.forEach((number, i) => {
    bar.children[i].style.width = (number * 100) / whole + "%";
  });
}
