// The console: a client of the read API. The key stays in this tab (sessionStorage); nothing is loaded from elsewhere.
"use strict";
const main = document.getElementById("main");
const secret = document.getElementById("secret");

// An element with properties and children; text is always text, never markup.
function el(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function svg(name, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);
const day = (text) => (text ? text.slice(0, 10) : "–");
const stage = (name) => el("span", { className: `stage ${name}` }, name.replace("_", " "));
const link = (id) => el("a", { href: `#/customers/${encodeURIComponent(id)}` }, id);

async function api(path) {
  const response = await fetch(path, { headers: { Authorization: `Bearer ${sessionStorage.getItem("key")}` } });
  const body = await response.json();
  if (!response.ok) throw new Error(`${body.title}: ${body.detail}`);
  return body;
}

function table(heads, rows) {
  const cell = (kind, content, number) => el(kind, number ? { className: "number" } : {}, content);
  const head = el("tr", {}, ...heads.map((text) => cell("th", text.replace("#", ""), text.startsWith("#"))));
  const body = rows.map((row) => el("tr", {}, ...row.map((content, i) => cell("td", content, heads[i].startsWith("#")))));
  return el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
}

async function atRisk(cursor = "") {
  const page = await api(`/v1/customers?sort=at-risk&limit=50${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
  const rows = page.customers.map((c) => [
    link(c.id), stage(c.stage), percent(c.attrition), percent(c.churn), day(c.last_activity), c.reasons[0]?.text ?? "",
  ]);
  const horizon = page.customers[0]?.churn_horizon_days ?? 90;
  return [
    el("h1", {}, "Customers at risk"),
    rows.length
      ? table(["Customer", "Stage", "#Attrition", `#No purchase in ${horizon} days`, "Last seen", "Why"], rows)
      : el("p", { className: "soft" }, "Nobody yet: no customer has a score."),
    page.next_cursor && el("p", {}, el("a", { href: `#/?${page.next_cursor}` }, "More")),
  ];
}

async function relances(cursor = "") {
  const page = await api(`/v1/relances?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
  const rows = page.relances.map((r) => [
    day(r.raised_at), link(r.customer), r.policy, r.kind.replace("_", " "), percent(r.score.value), r.reasons[0]?.text ?? "",
  ]);
  return [
    el("h1", {}, "Relances"),
    rows.length
      ? table(["Raised", "Customer", "Policy", "Kind", "#Score", "Why"], rows)
      : el("p", { className: "soft" }, "None beyond this point yet."),
    page.more ? el("p", {}, el("a", { href: `#/relances?${page.next_cursor}` }, "More")) : null,
  ];
}

// Attrition of the coming weeks in silence, with the thresholds of the policies that watch it.
function sparkline(customer) {
  const [width, height, left, bottom] = [640, 150, 38, 22];
  const points = customer.forecast.filter((point) => point.attrition !== null);
  const x = (i) => left + (i * (width - left - 8)) / Math.max(points.length - 1, 1);
  const y = (score) => 8 + (1 - score) * (height - bottom - 8);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Attrition of the coming twelve weeks if the customer stays silent" });
  for (const score of [0, 0.5, 1]) {
    chart.append(svg("line", { class: "axis", x1: left, x2: width, y1: y(score), y2: y(score) }));
    chart.append(svg("text", { x: 0, y: y(score) + 4 }, `${100 * score} %`));
  }
  for (const crossing of customer.crossings.filter((c) => c.score === "attrition")) {
    chart.append(svg("line", { class: "threshold", x1: left, x2: width, y1: y(crossing.threshold), y2: y(crossing.threshold) }));
  }
  chart.append(svg("polyline", { class: "line", points: points.map((point, i) => `${x(i)},${y(point.attrition)}`).join(" ") }));
  points.forEach((point, i) => i % 4 === 0 && chart.append(svg("text", { x: Math.min(x(i), width - 66), y: height - 4 }, day(point.at))));
  return chart;
}

async function customerPage(id) {
  const c = await api(`/v1/customers/${encodeURIComponent(id)}`);
  const figure = (value, label) => el("div", { className: "figure" }, el("b", {}, value), el("span", {}, label));
  const silent = (crossing) => (crossing.reached ? "reached" : day(crossing.crosses_at));
  const bought = c.evidence.purchases;
  return [
    el("h1", {}, c.id, " ", stage(c.stage)),
    el("section", {}, el("div", { className: "figures" },
      figure(percent(c.attrition?.score ?? null), "attrition"),
      ...c.churn.map((churn) => figure(percent(churn.score), `no purchase in ${churn.horizon_days} days`)))),
    el("section", {}, el("h2", {}, "Why"), el("ul", {}, ...c.reasons.map((reason) => el("li", { title: reason.events.join(", ") }, reason.text)))),
    el("section", {}, el("h2", {}, "If the customer stays silent"), sparkline(c),
      table(["Policy", "Score", "#Now", "#Threshold", "Reached on"],
        c.crossings.map((p) => [p.policy, p.score, percent(p.value), percent(p.threshold), silent(p)]))),
    el("section", {}, el("h2", {}, "Facts"), el("p", {},
      bought ? `${bought.x + 1} purchase days from ${bought.first_purchase} to ${bought.last_purchase}; ` : "Never bought; ",
      `${c.evidence.active_days} active days, last seen ${day(c.evidence.last_activity)}.`),
      el("p", { className: "soft" }, `Known as ${c.identities.join(", ")}. Model ${c.model}, as of ${c.as_of}.`)),
  ];
}

async function show() {
  if (!sessionStorage.getItem("key")) return;
  const [path, cursor] = location.hash.replace(/^#/, "").split("?");
  const customer = path.match(/^\/customers\/(.+)$/);
  try {
    const parts = customer ? customerPage(decodeURIComponent(customer[1])) : path === "/relances" ? relances(cursor) : atRisk(cursor);
    main.replaceChildren(...(await parts).filter(Boolean));
  } catch (error) {
    main.replaceChildren(el("p", { className: "problem" }, error.message));
  }
}

document.getElementById("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", secret.value.trim());
  show();
});
addEventListener("hashchange", show);
show();
