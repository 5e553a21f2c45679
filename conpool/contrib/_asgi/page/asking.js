// Asks for the numbers again and again, and hears what people want.

// ── asking ──

async function refresh() {
  clearTimeout(timer);
  if (running) running.abort();
  const mine = (running = new AbortController());
  const query = new URLSearchParams({sort: asked.sort, match: asked.match});
  if (!asked.all) {
    query.set("top", TOP);
    // Details that are open stay, also if others come before.
    query.set(
      "also",
      [...document.querySelectorAll("details[open]")].map(node => node.dataset.id).join(),
    );
  }
  const late = setTimeout(() => mine.abort(), 10000);
  try {
    const answer = await fetch("stats.json?" + query, {signal: mine.signal});
    if (!answer.ok) throw new Error(answer.statusText);
    const {version, at, pools: found} = await answer.json();
    rounds += 1;
    answeredAt = Date.now();
    found.forEach((stats, place) => showPool(place, at, stats));
    forgetOld();
    write($("version"), "conpool " + version);
    document.body.classList.remove("stale");
    document.body.dataset.rounds = rounds;
    say(asked.paused ? "paused" : "live", asked.paused ? "" : "good");
  } catch {
    if (mine === running) {
      document.body.classList.add("stale");
      say(
        answeredAt ? `no answer for ${span((Date.now() - answeredAt) / 1000)}` : "no answer",
        "bad",
      );
    }
  } finally {
    clearTimeout(late);
    if (mine === running) {
      running = null;
      if (!asked.paused && !document.hidden)
        timer = setTimeout(refresh, asked.all ? EVERY_ALL : EVERY);
    }
  }
}

function say(text, cls) {
  write($("live"), text);
  $("live").className = "pill " + cls;
}

function togglePause() {
  asked.paused = !asked.paused;
  write($("pause"), asked.paused ? "Go on" : "Pause");
  $("pause").setAttribute("aria-pressed", asked.paused);
  say(asked.paused ? "paused" : "live", asked.paused ? "" : "good");
  if (asked.paused) clearTimeout(timer);
  else refresh();
}

async function runChecks() {
  const box = $("health");
  box.hidden = false;
  box.replaceChildren(make("p", "foot", "The checks run…"));
  try {
    const {status, pools: looked, checks} = await (await fetch("health/detailed")).json();
    const pill = one =>
      make(
        "span",
        "pill " + (one.status === "ok" ? "good" : one.status === "failing" ? "bad" : ""),
        one.status,
      );
    const line = (one, name, text) =>
      make("li", "", pill(one), make("span", "", make("b", "", name), " ", text));
    const lines = [line({status}, "Health", "")];
    for (const [name, check] of Object.entries(checks))
      lines.push(
        line(check, name, [span(check.seconds), check.error ?? check.result ?? ""].join(" · ")),
      );
    for (const pool of looked) {
      lines.push(line(pool, `pool ${pool.name}`, pool.state));
      for (const one of pool.endpoints.filter(one => one.status !== "ok").slice(0, 20))
        lines.push(line(one, one.endpoint, one.error || ""));
    }
    const list = make("ul", "found", ...lines);
    const close = make("button", "", "Close");
    close.addEventListener("click", () => {
      box.hidden = true;
      $("check").focus();
    });
    box.replaceChildren(list, close);
  } catch (error) {
    box.replaceChildren(make("p", "foot alarm", "The checks could not be run: " + error.message));
  }
}

let typing = 0;
$("find").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    asked.match = $("find").value.trim();
    refresh();
  }, 150);
});
$("sort").addEventListener("change", () => {
  asked.sort = $("sort").value;
  refresh();
});
$("pause").addEventListener("click", togglePause);
$("check").addEventListener("click", runChecks);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !asked.paused) refresh();
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("find") && event.key === "Escape" && $("find").value) {
    $("find").value = asked.match = "";
    refresh();
  }
  if (event.target.matches("select, input") && event.key !== "ArrowDown") return;
  if (event.target.matches("select")) return;
  if (event.key === "/") {
    event.preventDefault();
    $("find").focus();
  } else if (event.key === "p") togglePause();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const rows = [...document.querySelectorAll("summary")];
    const next = rows.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (rows[next]) {
      event.preventDefault();
      rows[next].focus();
    }
  }
});
refresh();
