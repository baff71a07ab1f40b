// Opens pages in headless Chromium: browser.cjs ORIGIN PAGE=KEY... Each page lives in a context of its own, at an origin of its
// own that is not the collector's (which is ORIGIN). What a page found out is a line of JSON on standard output; pages stay
// open until standard input ends, since libraries send when they like. VIGIE_SCREENSHOT names a file for a picture of /inspect.
"use strict";

const http = require("node:http");
const path = require("node:path");
const { chromium } = require("playwright-core");

const [origin, ...wanted] = process.argv.slice(2);
const modules = process.env.NODE_PATH;
// Headless Chromium says so in its user agent, and would be taken for the machine that it is.
const person = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

// Chromium takes every name under localhost for this machine: each page has an origin of its own, served from here.
const served = new Map();
const server = http.createServer((request, response) => {
  const body = served.get(new URL(request.url, `http://${request.headers.host}`).href.split("?")[0]);
  response.writeHead(body === undefined ? 404 : 200, { "Content-Type": "text/html; charset=utf-8" }).end(body);
});

/** Serves a page; answers its address. */
function serve(host, name, body) {
  const address = `http://${host}.localhost:${server.address().port}/${name}`;
  served.set(address, `<!doctype html><title>${name}</title>${body}`);
  return address;
}

/** Opens the shoes page and loads a library of node_modules into it. */
async function shoes(page, name, library) {
  await page.goto(serve(name, "shoes", "<h1>Shoes</h1>"));
  await page.addScriptTag({ path: path.join(modules, library) });
}

/** Opens the shoes page with our own tracker, and counts what it asks of the collector. */
async function tracked(page, name, key, attributes) {
  const address = serve(name, "shoes", `<a id=offer data-vigie="Offer" href="#offer">Look</a>
    <form name="contact" onsubmit="return false"><button>Go</button></form>
    <script src="${origin}/t.js" data-key="${key}" ${attributes}></script>`);
  const sent = [];
  page.on("request", (request) => request.url().startsWith(`${origin}/t?`) && sent.push(request));
  await page.goto(address);
  return sent;
}

const kept = (page) => page.evaluate(() => Object.keys(localStorage).sort());

const pages = {
  // Libraries of other houses: the visitor looks at a page, turns out to be customer 42, and orders for 29.34 EUR.

  async segment(page, key) {
    await shoes(page, "segment", "@segment/analytics-next/dist/umd/index.js");
    await page.evaluate(async ([origin, key, order]) => {
      const analytics = AnalyticsNext.AnalyticsBrowser.load({ writeKey: key, cdnURL: origin });
      await analytics.page("Shoes");
      await analytics.identify("42", { plan: "gold" });
      await analytics.track("Order Completed", order);
    }, [origin, key, order]);
  },

  async rudderstack(page, key) {
    await shoes(page, "rudderstack", "@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js");
    await page.evaluate(([origin, key, order]) => {
      const analytics = new rudderanalytics.RudderAnalytics();
      analytics.load(key, origin, { configUrl: origin });
      analytics.page("Shoes");
      analytics.identify("42", { plan: "gold" });
      analytics.track("Order Completed", order);
    }, [origin, key, order]);
  },

  async snowplow(page, key) {
    await shoes(page, "snowplow", "@snowplow/browser-tracker/dist/index.umd.min.js");
    await page.evaluate(([origin, key, order]) => {
      const { newTracker, trackPageView, setUserId, trackSelfDescribingEvent } = snowplowBrowserTracking;
      newTracker("sp", origin, { appId: key });
      trackPageView({ title: "Shoes" });
      setUserId("42");
      const vendor = "iglu:com.snowplowanalytics.snowplow.ecommerce";
      const { order_id: transaction_id, revenue, currency } = order;
      trackSelfDescribingEvent({
        event: { schema: `${vendor}/snowplow_ecommerce_action/jsonschema/1-0-2`, data: { type: "transaction" } },
        context: [{ schema: `${vendor}/transaction/jsonschema/1-0-0`, data: { transaction_id, revenue, currency, payment_method: "card" } }],
      });
    }, [origin, key, order]);
  },

  async posthog(page, key) {
    await shoes(page, "posthog", "posthog-js/dist/array.full.no-external.js");
    await page.evaluate(([origin, key, order]) => {
      posthog.init(key, {
        api_host: origin, person_profiles: "always", autocapture: false, capture_pageview: false, capture_pageleave: false,
        opt_out_useragent_filter: true,
      });
      posthog.capture("$pageview");
      posthog.identify("42", { plan: "gold" });
      posthog.capture("Order Completed", order);
    }, [origin, key, order]);
  },

  // Our own tracker.

  /** Consent is required: nothing before it, however long it takes, and everything after it. */
  async consent(page, key) {
    await page.clock.install();
    const sent = await tracked(page, "consent", key, 'data-consent="required"');
    await page.evaluate(() => { vigie.track("early"); vigie.flush(); });
    await page.clock.runFor(600_000);
    const before = { kept: await kept(page), sent: sent.length };
    await page.evaluate(() => {
      vigie.consent({ profiling: true, marketing: false });
      vigie.identify("42");
      vigie.track("Size chosen", { size: 42 });
    });
    await page.click("#offer");
    await page.click("button");
    await page.evaluate(() => history.pushState({}, "", "/boots"));
    await page.addScriptTag({ content: 'throw new Error("broken")' });
    await page.clock.runFor(5_000);
    return { before, after: await kept(page) };
  },

  /** Global Privacy Control is a refusal where nothing else was said. */
  async privacy(page, key) {
    await page.addInitScript(() => Object.defineProperty(Navigator.prototype, "globalPrivacyControl", { get: () => true }));
    await page.clock.install();
    const sent = await tracked(page, "privacy", key, 'data-consent="implied"');
    await page.evaluate(() => { vigie.track("early"); vigie.flush(); });
    await page.clock.runFor(600_000);
    return { kept: await kept(page), sent: sent.length };
  },

  /** A page that is left sends what it has: its clock stands still, so nothing but leaving sends. */
  async leaving(page, key) {
    await page.clock.install();
    await tracked(page, "leaving", key, 'data-consent="implied" data-auto="off"');
    await page.evaluate(() => vigie.track("last"));
    await page.goto(serve("leaving", "elsewhere", ""));
  },

  /** A refusal is told once, and everything else is forgotten. */
  async refusal(page, key) {
    const sent = await tracked(page, "refusal", key, 'data-consent="implied" data-auto="off"');
    const answered = page.waitForResponse((response) => response.url().startsWith(`${origin}/t?`));
    await page.evaluate(() => { vigie.track("seen"); vigie.flush(); });
    await answered;
    await page.evaluate(() => { vigie.consent({ profiling: false }); vigie.track("unseen"); vigie.flush(); });
    return { kept: await kept(page), sent: sent.length };
  },

  /** An answer that says "later" loses nothing. */
  async later(page, key) {
    let refused = 0;
    await page.route(`${origin}/t?*`, (route) =>
      refused++ < 2
        ? route.fulfill({ status: 429, headers: { "Retry-After": "1", "Access-Control-Allow-Origin": "*" } })
        : route.fallback());
    await tracked(page, "later", key, 'data-consent="implied"');
    await page.evaluate(() => { vigie.track("patient"); vigie.flush(); });
  },

  // A mail, as a web mailer shows it: the pixel is drawn, the link is followed; who wants no more of it is asked, and says yes.

  async mail(page, key) {
    const offer = serve("shop", "offer", "");
    const asked = { user_id: "42", message_id: "m-1", campaign: "autumn", clicks: [`${offer}?from=mail#there`], open: true };
    const minted = await fetch(`${origin}/v1/links`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify(asked),
    });
    // The public address of the configuration cannot be the port that the server was given later.
    const links = JSON.parse((await minted.text()).replaceAll("http://links.example", origin));
    const mail = serve("mail", "mail", `<img id=pixel src="${links.open}"><a id=offer href="${links.clicks[0]}">Offer</a>
      <a id=stop href="${links.unsubscribe}">Unsubscribe</a>`);
    await page.goto(mail);
    const pixel = await page.evaluate(async () => {
      const image = document.getElementById("pixel");
      await image.decode();
      return [image.naturalWidth, image.naturalHeight];
    });
    await page.click("#offer");
    await page.waitForURL(`${offer}?from=mail#there`);
    const referrer = await page.evaluate(() => document.referrer);
    await page.goto(mail);
    await page.click("#stop");
    const question = await page.textContent("h1");
    await page.click("button");
    await page.waitForFunction((question) => document.querySelector("h1")?.textContent !== question, question);
    return { pixel, referrer, question, answer: await page.textContent("h1") };
  },

  // The page for integrators, seen by somebody who gave the admin key as the password.

  async inspect(page) {
    const failed = [];
    page.on("console", (message) => message.type() === "error" && failed.push(message.text()));
    await page.setViewportSize({ width: 1100, height: 700 });
    const answer = await page.goto(`${origin}/inspect?limit=6`);
    const [accepted, refused] = await page.locator("section").all();
    const rows = async (section) => (await section.locator("tbody tr").allInnerTexts()).map((row) => row.replaceAll(/\s+/g, " "));
    const said = { status: answer.status(), accepted: await rows(accepted), refused: await rows(refused), failed };
    if (process.env.VIGIE_SCREENSHOT) await page.screenshot({ path: process.env.VIGIE_SCREENSHOT, fullPage: true });
    await page.click("text=scores before and after");
    return { ...said, scores: (await page.innerText("body")).replaceAll(/\s+/g, " ") };
  },
};

const order = { order_id: "1001", revenue: 29.34, currency: "EUR" };

async function main() {
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const browser = await chromium.launch({
    executablePath: process.env.VIGIE_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--user-agent=${person}`],
  });
  const visit = async (visited) => {
    const [name, key] = visited.split("=");
    const context = await browser.newContext({
      httpCredentials: { username: "", password: key },
      permissions: ["local-network-access"],
    });
    const page = await context.newPage();
    const said = await pages[name](page, key).catch((error) => ({ error: String(error.stack) }));
    console.log(JSON.stringify({ page: name, said }));
  };
  const ended = new Promise((done) => process.stdin.once("end", done).resume());
  await Promise.all(wanted.map(visit));
  await ended;
  await browser.close();
  server.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
