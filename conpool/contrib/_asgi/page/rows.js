// What the page shows of an endpoint, and of a pool.


// ── one endpoint ──

function makeRow(id) {
  const row = {id, node: make("details"), stats: null, more: null};
  row.node.dataset.id = id;
  row.name = make("span");
  row.flag = make("span", "pill");
  row.bar = makeBar();
  row.taken = make("span");
  row.spark = chart();
  const cells = [
    ["waiting", "waiting", ""],
    ["p50", "p50", ""],
    ["p99", "p99", ""],
    ["leases", "leases/s", ""],
    ["errors", "errors", " extra"],
  ];
  for (const [key, label, extra] of cells) {
    row[key] = make("span", "n" + extra);
    row[key].dataset.k = label;
  }
  row.summary = make(
    "summary",
    "grid",
    make("span", "name", row.name, row.flag),
    make("span", "use", row.taken, row.bar),
    ...cells.map(([key]) => row[key]),
    row.spark,
  );
  row.node.append(row.summary);
  row.node.addEventListener("toggle", () => showRow(row));
  watcher.observe(row.node);
  row.node.conpool = row;
  return row;
}

function showRow(row) {
  const {stats} = row;
  const {points} = histories.get(stats.id);
  const newest = points.at(-1);
  row.summary.className = "grid " + stats.status;
  write(row.name, stats.endpoint);
  write(row.flag, stats.status === "ok" ? "" : stats.status);
  row.flag.className = stats.status === "failing" ? "pill bad" : "pill";
  write(
    row.taken,
    `${count(stats.active)} active, ${count(stats.idle)} idle of ${count(stats.limit)}`,
  );
  setBar(row.bar, stats, stats.limit);
  write(row.waiting, count(stats.waiting));
  row.waiting.classList.toggle("alarm", stats.waiting > 0);
  const waited = stats.wait_time.count > 0;
  write(row.p50, waited ? span(stats.wait_time.p50) : "–");
  write(row.p99, waited ? span(stats.wait_time.p99) : "–");
  write(row.leases, rate(newest.leases));
  write(row.errors, count(stats.errors));
  row.errors.classList.toggle("alarm", stats.status === "failing");
  draw(row.spark, points, CONNECTIONS, stats.limit, true);
  if (row.node.open) showMore(row, points);
}

function addChart(row, key, title, ...names) {
  const max = make("span"),
    svg = chart(),
    legend = make("div", "key");
  for (const [name, shade] of names) {
    const mark = make("i");
    mark.style.background = color(shade);
    legend.append(make("span", "", mark, name));
  }
  row[key] = {svg, max, legend};
  return make("div", "chart", make("h4", "", title, max), svg, legend);
}

function makeMore(row) {
  const charts = make(
    "div",
    "charts",
    addChart(
      row,
      "connections",
      "Connections",
      ["active", "active"],
      ["idle", "idle"],
      ["connecting", "connecting"],
    ),
    addChart(row, "queue", "Waiting tasks", ["waiting", "waiting"]),
    addChart(
      row,
      "waits",
      "Waits",
      ["p99 since start", "waiting"],
      ["p50 since start", "active"],
      ["mean of now", "c3"],
    ),
    addChart(row, "closes", "Opened and closed, per s"),
  );
  row.error = make("p", "error");
  row.facts = make("div", "facts");
  row.holders = make("div");
  const button = make("button", "", "Show who holds connections");
  button.addEventListener("click", () => showHolders(row));
  row.more = make("div", "more", row.error, charts, row.facts, button, row.holders);
  row.node.append(row.more);
}

function showMore(row, points) {
  if (!row.more) makeMore(row);
  const {stats} = row;
  row.error.hidden = !stats.error;
  const since = stats.failing_for ? `Failing for ${span(stats.failing_for)}. ` : "";
  write(row.error, stats.error ? since + stats.error : "");
  const top = (part, max, say) => write(row[part].max, "top: " + say(max));
  top("connections", draw(row.connections.svg, points, CONNECTIONS, stats.limit, true), count);
  top("queue", draw(row.queue.svg, points, WAITING), count);
  top("waits", draw(row.waits.svg, points, WAITS, 1e-6), span);
  const reasons = Object.keys(stats.closed_by_reason);
  const layers = reasons.map(reason => ({
    of: p => p.reasons[reason] || 0,
    color: REASONS[reason] || "c4",
    fill: true,
  }));
  const opened = {of: p => p.opened, color: "active"};
  top("closes", draw(row.closes.svg, points, [...layers, opened], 1, true), rate);
  const legend = [
    ["opened", "active", stats.total_created],
    ...reasons.map(reason => [
      reason.replaceAll("_", " "),
      REASONS[reason] || "c4",
      stats.closed_by_reason[reason],
    ]),
  ];
  row.closes.legend.replaceChildren(
    ...legend.map(([name, shade, total]) => {
      const mark = make("i");
      mark.style.background = color(shade);
      return make("span", "", mark, `${name} ${count(total)}`);
    }),
  );
  const facts = [
    [count(stats.acquired), "leases"],
    [count(stats.total_reused), "reused"],
    [count(stats.acquire_timeouts), "timed out"],
    [count(stats.acquire_cancelled), "cancelled"],
    [count(stats.errors), "dials failed"],
    [span(stats.oldest_wait), "oldest wait"],
    [span(stats.connect_time.p50), "to connect (p50)"],
    [span(stats.use_time.p50), "of use (p50)"],
  ];
  if (stats.circuit !== "closed") facts.push([stats.circuit.replace("_", " "), "circuit"]);
  row.facts.replaceChildren(
    ...facts.map(([value, name]) => make("span", "", make("b", "", value), " ", name)),
  );
}

async function showHolders(row) {
  row.holders.replaceChildren(make("p", "", "asking…"));
  try {
    const answer = await fetch(`holders.json?id=${row.id}`);
    if (!answer.ok) throw new Error(await answer.text());
    const {holders, others} = await answer.json();
    const lines = holders.map(line => make("li", "", line));
    if (others) lines.push(make("li", "", `and ${count(others)} more`));
    row.holders.replaceChildren(
      lines.length ? make("ol", "", ...lines) : make("p", "", "Nobody holds one."),
    );
  } catch (error) {
    row.holders.replaceChildren(make("p", "alarm", error.message));
  }
}

const watcher = new IntersectionObserver(
  changes => {
    for (const {target, isIntersecting} of changes) {
      if (!isIntersecting) visible.delete(target);
      else {
        visible.add(target);
        if (target.conpool.stats) showRow(target.conpool);
      }
    }
  },
  {rootMargin: "200px"},
);

// ── one pool ──

function makeTile(title) {
  const tile = {value: make("b"), sub: make("p"), spark: chart()};
  tile.node = make("div", "tile card", make("h3", "", title), tile.value, tile.sub, tile.spark);
  return tile;
}

function makePool() {
  const pool = {rows: new Map(), name: make("span"), about: make("small")};
  pool.used = makeTile("Connections in use");
  pool.waiting = makeTile("Waiting tasks");
  pool.leases = makeTile("Leases per s");
  pool.turnover = makeTile("Opens / closes per s");
  pool.bar = makeBar();
  pool.used.sub.after(pool.bar);
  const names = [
    "Endpoint",
    "Connections",
    "Waiting",
    "Wait p50",
    "Wait p99",
    "Leases/s",
    "Errors",
    "Last minutes",
  ];
  const head = make(
    "div",
    "grid head",
    ...names.map((name, i) => make("span", i > 1 && i < 7 ? "n" : "", name)),
  );
  pool.list = make("div", "list");
  pool.foot = make("div", "foot");
  const tiles = [pool.used, pool.waiting, pool.leases, pool.turnover].map(tile => tile.node);
  pool.node = make(
    "section",
    "",
    make("h2", "", pool.name, pool.about),
    make("div", "tiles", ...tiles),
    make("div", "card", head, pool.list, pool.foot),
  );
  $("pools").append(pool.node);
  return pool;
}

function setTile(tile, value, unit, sub, alarm) {
  tile.value.replaceChildren(value, make("small", "", unit));
  tile.value.classList.toggle("alarm", Boolean(alarm));
  write(tile.sub, sub);
}

function showPool(place, at, stats) {
  if (!pools.has(place)) pools.set(place, makePool());
  const pool = pools.get(place);
  const {points} = learn("pool " + place, at, stats);
  const newest = points.at(-1);
  write(pool.name, stats.name);
  const endpoints = `${count(stats.known)} ${stats.known === 1 ? "endpoint" : "endpoints"}`;
  write(pool.about, stats.state === "open" ? endpoints : `${stats.state}, ${endpoints}`);
  const rest = [
    ["idle", stats.idle],
    ["connecting", stats.connecting],
    ["closing", stats.closing],
  ]
    .filter(([name, number]) => number || name === "idle")
    .map(([name, number]) => `${count(number)} ${name}`);
  setTile(
    pool.used,
    count(stats.active),
    stats.limit === null ? "" : ` of ${count(stats.limit)}`,
    rest.join(", "),
  );
  setBar(pool.bar, stats, stats.limit);
  setTile(
    pool.waiting,
    count(stats.waiting),
    "",
    stats.waiting ? `the first for ${span(stats.oldest_wait)}` : "nobody waits",
    stats.waiting,
  );
  setTile(
    pool.leases,
    rate(newest.leases),
    "",
    `${count(stats.acquired)} so far, ${count(stats.acquire_timeouts)} timed out`,
  );
  setTile(
    pool.turnover,
    rate(newest.opened),
    ` / ${rate(newest.closed)}`,
    `${count(stats.total_created)} opened, ${count(stats.errors)} dials failed`,
  );
  draw(pool.used.spark, points, CONNECTIONS, 1, true);
  draw(pool.waiting.spark, points, WAITING);
  draw(pool.leases.spark, points, LEASES);
  draw(pool.turnover.spark, points, TURNOVER);
  showEndpoints(pool, at, stats);
}

function showEndpoints(pool, at, stats) {
  const order = [];
  for (const one of stats.endpoints) {
    learn(one.id, at, one);
    let row = pool.rows.get(one.id);
    if (!row) pool.rows.set(one.id, (row = makeRow(one.id)));
    row.stats = one;
    order.push(row);
  }
  const shown = new Set(order);
  for (const [id, row] of pool.rows) {
    if (shown.has(row)) continue;
    watcher.unobserve(row.node);
    row.node.remove();
    pool.rows.delete(id);
  }
  // Rows must not move under a pointer or a focus.
  const busy = pool.list.matches(":hover, :focus-within");
  for (const [i, row] of order.entries())
    if (!row.node.isConnected || (!busy && pool.list.children[i] !== row.node))
      pool.list.insertBefore(row.node, busy ? null : pool.list.children[i] || null);
  for (const row of order) if (visible.has(row.node) || row.node.open) showRow(row);
  showFoot(pool, stats);
}

function showFoot(pool, stats) {
  const {
    matching,
    endpoints: {length},
  } = stats;
  const text = !stats.known
    ? "No endpoint has been asked for yet."
    : !matching
      ? "No endpoint matches."
      : matching > TOP
        ? `${count(length)} of ${count(matching)} shown.`
        : "";
  if (pool.foot.dataset.text === text + asked.all) return;
  pool.foot.dataset.text = text + asked.all;
  pool.foot.replaceChildren();
  if (text) pool.foot.append(make("span", "", text));
  if (stats.known && matching > TOP) {
    const button = make(
      "button",
      "",
      asked.all ? `Show only ${TOP}` : `Show all ${count(matching)}`,
    );
    button.addEventListener("click", () => {
      asked.all = !asked.all;
      refresh();
    });
    pool.foot.append(button);
  }
}
