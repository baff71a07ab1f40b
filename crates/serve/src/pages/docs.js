// Shows /openapi.json: every operation with its parameters, answers and an example command; every schema.
"use strict";
const main = document.getElementById("main");

function el(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const refName = (ref) => ref.split("/").pop();

// A schema in one line: a link to a named one, or its type.
function type(schema) {
  if (!schema) return "";
  if (schema.$ref) return el("a", { href: `#${refName(schema.$ref)}` }, refName(schema.$ref));
  if (schema.type === "array") return el("span", {}, "list of ", type(schema.items));
  const choice = schema.oneOf ?? schema.anyOf;
  if (choice) return el("span", {}, ...choice.flatMap((one, i) => (i ? [" or ", type(one)] : [type(one)])));
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  return [].concat(schema.type ?? "any").join(" or ") + (schema.format ? ` (${schema.format})` : "");
}

function table(heads, rows) {
  const row = (kind, cells) => el("tr", {}, ...cells.map((cell) => el(kind, {}, cell ?? "")));
  return rows.length ? el("table", {}, el("thead", {}, row("th", heads)), el("tbody", {}, ...rows.map((cells) => row("td", cells)))) : null;
}

function command(method, path, operation) {
  const key = operation.security ? ' -H "Authorization: Bearer $VIGIE_READ_KEY"' : "";
  const body = operation.requestBody ? ` --json '{"ids": ["C000123"]}'` : "";
  const verb = method === "get" ? "" : ` -X ${method.toUpperCase()}`;
  return `curl${verb}${key}${body} ${location.origin}${path.replace("{id}", "C000123")}`;
}

function operationView(method, path, operation) {
  const parameters = (operation.parameters ?? []).map((p) => [
    el("code", {}, p.name), p.required ? `${p.in}, required` : p.in, type(p.schema), p.description,
  ]);
  const answers = Object.entries(operation.responses).map(([status, answer]) => [
    status, answer.description, type(Object.values(answer.content ?? {})[0]?.schema),
  ]);
  const request = Object.values(operation.requestBody?.content ?? {})[0]?.schema;
  return el("details", {},
    el("summary", {}, el("code", {}, `${method.toUpperCase()} ${path}`), ` ${operation.summary ?? ""}`),
    ...(operation.description ?? "").split("\n\n").map((text) => el("p", {}, text)),
    table(["Parameter", "In", "Type", "Meaning"], parameters),
    request ? el("p", {}, "Body: ", type(request)) : null,
    table(["Status", "Meaning", "Body"], answers),
    el("pre", {}, command(method, path, operation)));
}

function schemaView(name, schema) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([field, inner]) => [
    el("code", {}, field), type(inner), required.has(field) ? "always" : "", inner.description,
  ]);
  return el("details", { id: name }, el("summary", {}, el("code", {}, name)),
    el("p", {}, schema.description ?? ""), fields.length ? table(["Field", "Type", "Given", "Meaning"], fields) : el("p", {}, type(schema)));
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.open = true;
}

async function show() {
  const document = await (await fetch("/openapi.json")).json();
  const operations = Object.entries(document.paths)
    .flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
  const sections = document.tags.map((tag) => el("section", {}, el("h2", {}, `${tag.name}: ${tag.description}`),
    ...operations.filter(({ operation }) => operation.tags?.includes(tag.name))
      .map(({ method, path, operation }) => operationView(method, path, operation))));
  const schemas = Object.entries(document.components.schemas).map(([name, schema]) => schemaView(name, schema));
  main.replaceChildren(el("h1", {}, `${document.info.title} ${document.info.version}`),
    ...document.info.description.split("\n\n").map((text) => el("p", {}, text)),
    ...sections, el("section", {}, el("h2", {}, "Schemas"), ...schemas));
  openTarget();
}

addEventListener("hashchange", openTarget);
show().catch((error) => main.replaceChildren(el("p", { className: "problem" }, error.message)));
