"use strict";

// What the page does: asks for news once a second, fills the plots, and sends what is clicked.

const TOKEN = new URLSearchParams(location.search).get("token") || "";
const LIMIT_LINES = ["memory.high", "memory.max"];
const UNITS = ["B", "K", "M", "G", "T", "P"];
const element = (id) => document.getElementById(id);

const state = { engine: "", cgroup: "/", range: "hour", since: 0, series: null, ages: null, minAge: 0, now: {}, limits: "" };

window.uzswapSize = (bytes) => {
  let value = bytes, unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return (unit && Math.abs(value) < 100 ? value.toFixed(1) : Math.round(value)) + " " + UNITS[unit];
};
const size = window.uzswapSize;
const duration = (s) => s < 60 ? `${s} s` : s < 3600 ? `${s / 60} min` : s < 86400 ? `${s / 3600} h` : `${s / 86400} d`;
const clock = (when) => new Date(when * 1000).toLocaleTimeString();

async function ask(method, path, query, body) {
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, {
    method, headers: { "X-Uzswap-Token": TOKEN }, body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "omit", referrerPolicy: "no-referrer",
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.status === 204 ? null : answer.json();
}

// The plots

let models = {};

async function embed() {
  const mode = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  models = {};
  for (const item of window.uzswapItems[mode]) {
    element(item.target_id).replaceChildren();
    const views = await Bokeh.embed.embed_item(structuredClone(item));
    const view = Array.isArray(views) ? views[0] : Array.from(views)[0] || views;
    models[item.target_id] = view.model || view;
  }
  for (const source of named("rectangles")) {
    source.selected.properties.indices.change.connect(() => {
      const [first] = source.selected.indices;
      if (first !== undefined) choose(source.data.cgroup[first]);
    });
  }
  draw();
}

function named(name) {
  return Object.values(models).map((model) => model.document && model.document.roots()
    .flatMap((root) => Array.from(root.references())).find((one) => one.name === name)).filter(Boolean);
}

function fill(name, data) { for (const source of named(name)) source.data = { ...data }; }

function draw() {
  const series = state.series;
  if (!series || !Object.keys(models).length) return;
  // The axis knows no time zones.
  const time = series.time.map((when) => when * 1000 - new Date(when * 1000).getTimezoneOffset() * 60000);
  const saved = series.zswapped.map((bytes, i) => Math.max(0, bytes - series.zswap[i]));
  const ratio = series.zswapped.map((bytes, i) => series.zswap[i] ? bytes / series.zswap[i] : NaN);
  fill("history", { ...series, time, saved, ratio });
  const highest = ratio.filter(Number.isFinite).reduce((a, b) => Math.max(a, b), 3);
  for (const range of named("ratios")) range.end = Math.ceil(highest + 0.5);
  const [left, right] = [time[0], time[time.length - 1]];
  const lines = LIMIT_LINES.filter((name) => typeof (state.now.limits || {})[name] === "number");
  const level = (i) => series.resident[i] + series.zswap[i] + series.disk[i];
  const top = Math.max(...series.time.map((_, i) => level(i)), 1);
  // A limit far above all that was used would press the curve to the ground.
  const near = lines.filter((name) => state.now.limits[name] < 4 * top);
  fill("limits", { y: near.map((name) => state.now.limits[name]), name: near, left: near.map(() => left), right: near.map(() => right) });
  const budget = state.now.write_budget;
  fill("budget", budget ? { left: [left], right: [right], y: [budget] } : { left: [], right: [], y: [] });
  drawAges();
}

function drawAges() {
  if (!state.ages || !models.ages) return;
  element("age").max = state.ages.since.length - 1;
  const names = state.ages.since.map(duration);
  models.ages.x_range.factors = names;
  fill("by_age", { age: names, bytes: state.ages.bytes, colour: names.map((_, i) => i >= state.minAge ? "#009E73" : "#99999966") });
  const bytes = state.ages.bytes.slice(state.minAge).reduce((a, b) => a + b, 0);
  const entries = state.ages.entries.slice(state.minAge).reduce((a, b) => a + b, 0);
  element("older").textContent = `older than ${names[state.minAge]}: a request could write ${size(bytes)} (${bytes} bytes in ${entries} entries)`;
}

// The tables

function cell(row, text, className) {
  const made = row.insertCell();
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function link(text, act) {
  const made = document.createElement("button");
  made.type = "button"; made.className = "link"; made.textContent = text; made.onclick = act;
  return made;
}

function tables(now) {
  const cgroups = element("cgroups").tBodies[0];
  cgroups.replaceChildren();
  for (const one of now.cgroups) {
    const row = cgroups.insertRow();
    if (one.cgroup === state.cgroup) row.className = "chosen";
    cell(row, "").append(link(one.cgroup, () => choose(one.cgroup)));
    cell(row, size(one.resident)); cell(row, size(one.zswap)); cell(row, size(one.disk));
    cell(row, one.zswap ? (one.zswapped / one.zswap).toFixed(2) : "");
    cell(row, one.max === null ? "" : size(one.max));
    cell(row, one.max ? `${Math.round(100 * one.current / one.max)} %` : "");
    cell(row, one.pressure ? `${one.pressure.toFixed(1)} %` : "");
  }
  const requests = element("requests").tBodies[0];
  requests.replaceChildren();
  for (const one of now.requests) {
    const row = requests.insertRow();
    row.dataset.number = one.number;
    cell(row, `${one.cgroup}: ${one.text}`);
    cell(row, clock(one.began));
    const outcome = cell(row, "");
    if (one.ended === null) {
      const bar = document.createElement("progress");
      bar.max = one.asked || 1; bar.value = Math.min(one.done, one.asked);
      outcome.append(bar, " ", link("cancel", () => act(() => ask("DELETE", "request", { engine: state.engine, number: one.number }))));
    } else {
      outcome.textContent = one.outcome;
      outcome.title = one.message;
      if (one.outcome !== "done") outcome.className = "warn";
    }
    cell(row, size(one.done));
  }
  const last = element("last").tBodies[0];
  last.replaceChildren();
  for (const one of now.last) {
    const row = last.insertRow();
    cell(row, one.cgroup); cell(row, size(one.asked)); cell(row, size(one.written || one.reclaimed));
    cell(row, `${one.entries}`); cell(row, `${one.seconds.toFixed(3)} s`);
  }
  element("decisions").replaceChildren(...now.decisions.map((one) => {
    const made = document.createElement("li");
    made.textContent = `${clock(one.time)} ${one.text}`;
    return made;
  }));
  element("no-agent").hidden = now.decisions.length > 0;
}

function limits(now) {
  const told = JSON.stringify([state.engine, state.cgroup, now.limits]);
  const body = element("limits").tBodies[0];
  // Not under the hands of who types.
  if (told === state.limits || body.contains(document.activeElement)) return;
  state.limits = told;
  body.replaceChildren();
  for (const [file, value] of Object.entries(now.limits)) {
    const row = body.insertRow();
    cell(row, file);
    const input = document.createElement("input");
    input.className = "limit"; input.name = file; input.value = typeof value === "number" && value > 1 ? exact(value) : value;
    input.setAttribute("aria-label", file);
    const set = () => act(() => ask("PUT", "limit", { engine: state.engine }, { cgroup: state.cgroup, file, value: input.value }));
    input.onkeydown = (event) => { if (event.key === "Enter") { input.blur(); set(); } };
    const button = document.createElement("button");
    button.type = "button"; button.textContent = "set"; button.onclick = set;
    const place = cell(row, "");
    place.append(input, " ", button);
  }
}

// A size that is read back as the same number.
function exact(bytes) {
  let value = bytes, unit = 0;
  while (value % 1024 === 0 && value && unit < 4) { value /= 1024; unit += 1; }
  return value + (unit ? UNITS[unit] : "");
}

function rectangles(now) {
  const own = now.rectangles;
  fill("rectangles", {
    ...own,
    colour: own.cgroup.map((path, i) => path === state.cgroup ? "#d55e00" : ["#0072b2", "#00648f", "#00566f"][i % 3]),
    x: own.left, y: own.top,
    label: own.cgroup.map((path, i) => (own.right[i] - own.left[i]) > 0.25 && (own.top[i] - own.bottom[i]) > 0.1 ? path : ""),
  });
}

function numbers(now) {
  const own = now.now;
  const told = [
    ["resident", size(own.resident)], ["zswap", size(own.zswap)], ["holds", size(own.zswapped)], ["disk", size(own.disk)],
    ["saved", size(Math.max(0, own.zswapped - own.zswap))], ["ratio", own.zswap ? (own.zswapped / own.zswap).toFixed(2) : "-"],
  ];
  element("numbers").replaceChildren(...told.map(([name, value]) => {
    const made = document.createElement("span");
    const number = document.createElement("b");
    number.textContent = value; number.id = `now-${name}`;
    made.append(`${name} `, number);
    return made;
  }));
  element("numbers").dataset.written = own.written_ever;
}

// News

function merge(series) {
  const old = state.series;
  if (!old || state.since === 0) { state.series = series; } else {
    const most = state.range === "hour" ? 3600 : 1440;
    for (const name of Object.keys(series)) state.series[name] = old[name].concat(series[name]).slice(-most);
  }
  if (series.time.length) state.since = series.time[series.time.length - 1];
}

async function look() {
  const asked = [state.engine, state.cgroup, state.range].join("\n");
  const query = { engine: state.engine, cgroup: state.cgroup, range: state.range, since: state.since };
  const now = await ask("GET", "feed", query);
  if (asked !== [state.engine, state.cgroup, state.range].join("\n")) return;
  state.now = now;
  element("trouble").textContent = now.trouble;
  const engines = element("engines");
  if (engines.dataset.told !== now.engines.join("\n")) {
    engines.dataset.told = now.engines.join("\n");
    engines.replaceChildren(...now.engines.map((name) => new Option(name, name, false, name === now.engine)));
  }
  state.engine = now.engine;
  if (now.gone) { choose("/"); return; }
  element("chosen").textContent = state.cgroup;
  state.ages = now.ages;
  merge(now.series);
  numbers(now); tables(now); limits(now); rectangles(now);
  draw();
  document.body.dataset.looks = Number(document.body.dataset.looks || 0) + 1;
}

async function forever() {
  for (;;) {
    try {
      await look();
    } catch (error) {
      element("trouble").textContent = `no news: ${error.message}`;
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

// What is clicked

function choose(cgroup) {
  if (cgroup === state.cgroup) return;
  Object.assign(state, { cgroup, since: 0, series: null, limits: "" });
  element("chosen").textContent = cgroup;
}

async function act(what) {
  try { await what(); element("said").textContent = ""; } catch (error) { element("said").textContent = error.message; }
}

element("engines").onchange = (event) => {
  Object.assign(state, { engine: event.target.value, cgroup: "/", since: 0, series: null, limits: "" });
};
element("range").onchange = (event) => Object.assign(state, { range: event.target.value, since: 0, series: null });
element("age").oninput = (event) => { state.minAge = Number(event.target.value); drawAges(); };
element("reclaim").onsubmit = (event) => {
  event.preventDefault();
  const form = event.target;
  const words = [form.size.value.trim()];
  if (form.source.checked) {
    words.push("source=zswap");
    if (state.minAge) words.push(`min_age=${state.ages.since[state.minAge]}`);
  }
  act(() => ask("POST", "reclaim", { engine: state.engine }, { cgroup: state.cgroup, text: words.join(" ") }));
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", embed);

Bokeh.set_log_level("error");
embed().then(forever);
