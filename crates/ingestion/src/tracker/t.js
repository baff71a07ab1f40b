/*! vigie tracker. Load it with
 *    <script async src="https://HOST/t.js" data-key="WRITE-KEY" data-consent="required"></script>
 *  data-key      a write key whose origins name this page's origin
 *  data-consent  "required": nothing is stored or sent before vigie.consent({profiling: true}); "implied": at once
 *  data-auto     "off": no page views, clicks, forms, errors or load times unless asked for
 *  Global Privacy Control counts as a refusal until the person consents here.
 *  window.vigie: page(), track(name, properties), identify(userId), consent({profiling, marketing}), reset(), flush()
 */
(function (w, d) {
  "use strict";
  var me = d.currentScript || d.querySelector("script[data-key]");
  if (!me || w.vigie && w.vigie.v) return;
  var n = navigator, set = me.dataset, home = new URL("/t", me.src).href + "?key=" + encodeURIComponent(set.key || "");
  var early = w.vigie || [], queue = [], timer, user, said, held = [];
  var store = {
    get: function (k) { try { return w.localStorage.getItem("vigie." + k); } catch (e) { return null; } },
    set: function (k, v) { try { w.localStorage.setItem("vigie." + k, v); } catch (e) { /* private mode: nothing is kept */ } },
    del: function (k) { try { w.localStorage.removeItem("vigie." + k); } catch (e) { /* nothing was kept */ } }
  };
  function id() {
    if (w.crypto && w.crypto.randomUUID) return w.crypto.randomUUID();
    var b = w.crypto.getRandomValues(new Uint8Array(16)), s = "";
    for (var i = 0; i < 16; i++) s += (b[i] + 256).toString(16).slice(1);
    return s;
  }
  try { said = JSON.parse(store.get("said")); } catch (e) { said = null; }
  function allowed() {
    if (said) return said.profiling === true;
    return set.consent === "implied" && n.globalPrivacyControl !== true;
  }
  var visitor;
  function who() {
    if (!visitor) { visitor = store.get("id") || id(); store.set("id", visitor); }
    return visitor;
  }
  function words() {
    var c = {};
    for (var k in said) if (k === "profiling" || k === "marketing") c[k] = said[k] ? "granted" : "refused";
    return c;
  }
  // Without consent an event is held in memory, in case it is given on this page; nothing is stored or sent.
  function add(e) {
    e.timestamp = e.timestamp || Date.now();
    if (!allowed()) { if (!said && held.length < 50) held.push(e); return; }
    put(e);
  }
  function put(e) {
    e.id = id();
    e.anonymous_id = who();
    if (user) e.user_id = user;
    e.context = e.context || { page_url: location.href, referrer: d.referrer };
    if (said) e.consent = words();
    if (JSON.stringify(e).length > 30000) return;
    queue.push(e);
    if (queue.length >= 20) flush(); else if (!timer) timer = setTimeout(flush, 2000);
  }
  function send(events, leaving, tries) {
    var body = JSON.stringify({ events: events.map(function (e) { e.sent_at = Date.now(); return e; }) });
    if (leaving && n.sendBeacon && n.sendBeacon(home, new Blob([body], { type: "text/plain" }))) return;
    fetch(home, { method: "POST", body: body, headers: { "Content-Type": "text/plain" }, keepalive: body.length < 6e4, credentials: "omit" })
      .then(function (r) { if (r.status === 429 || r.status >= 500) throw r; })
      .catch(function (r) {
        var after = r && r.headers && +r.headers.get("Retry-After") || Math.pow(2, tries);
        if (tries < 6) setTimeout(function () { send(events, false, tries + 1); }, Math.min(after, 300) * 1000);
      });
  }
  function flush(leaving) {
    clearTimeout(timer); timer = 0;
    while (queue.length) send(queue.splice(0, 20), leaving === true, 0);
  }
  function text(s, max) { return String(s == null ? "" : s).slice(0, max || 200); }
  function named(name, signal, properties) {
    var e = { name: text(name) || signal };
    if (signal) e.signal = signal;
    if (properties) e.properties = properties;
    add(e);
  }
  var api = {
    v: 1,
    page: function (name) { named(name || d.title || location.pathname, "page.view"); },
    track: function (name, properties) { named(name, 0, properties); },
    identify: function (u) { user = text(u) || undefined; if (user) add({ signal: "identity.identify" }); },
    consent: function (c) {
      said = {};
      for (var k in c) said[k] = c[k] === true;
      if (allowed()) {
        store.set("said", JSON.stringify(said));
        var waiting = held; held = [];
        waiting.forEach(put);
        put({ name: "consent", timestamp: Date.now() });
      } else {
        // A refusal is told once, if we knew this visitor; then everything of them is forgotten here.
        var known = visitor || store.get("id");
        queue = []; held = [];
        if (known) { visitor = known; put({ name: "consent", timestamp: Date.now() }); flush(); }
        api.reset();
        said = {};
        for (k in c) said[k] = c[k] === true;
        store.set("said", JSON.stringify(said));
      }
    },
    reset: function () { store.del("id"); store.del("said"); visitor = user = undefined; said = null; },
    flush: flush
  };
  w.vigie = api;
  if (set.auto !== "off") {
    api.page();
    // Another fragment is the same page, unless it is the path of an application that keeps its pages there.
    var where = function () { return location.href.replace(/#(?![!\/]).*/, ""); }, path = where();
    ["pushState", "replaceState"].forEach(function (f) {
      var was = history[f];
      history[f] = function () { var r = was.apply(this, arguments); moved(); return r; };
    });
    var moved = function () { if (where() !== path) { path = where(); api.page(); } };
    w.addEventListener("popstate", moved);
    d.addEventListener("click", function (e) {
      var t = e.target.closest && e.target.closest("[data-vigie]");
      if (t) named(t.dataset.vigie, "link.click", { href: t.href ? text(t.href, 2000) : undefined, text: text(t.textContent.trim(), 100) });
    }, true);
    d.addEventListener("submit", function (e) {
      var f = e.target;
      named(f.dataset.vigie || f.getAttribute("name") || f.id || "form", "form.submit");
    }, true);
    var faults = 0;
    var fault = function (m, where) { if (faults++ < 5) named("error", "page.error", { message: text(m, 300), where: text(where, 300) }); };
    w.addEventListener("error", function (e) { if (e.message) fault(e.message, e.filename + ":" + e.lineno); });
    w.addEventListener("unhandledrejection", function (e) { fault(e.reason && e.reason.message || e.reason, "promise"); });
    w.addEventListener("load", function () {
      setTimeout(function () {
        var t = performance.getEntriesByType && performance.getEntriesByType("navigation")[0];
        if (t) named("page load", 0, { load_ms: Math.round(t.loadEventEnd || t.duration), first_byte_ms: Math.round(t.responseStart) });
      }, 0);
    });
  }
  d.addEventListener("visibilitychange", function () { if (d.visibilityState === "hidden") flush(true); });
  w.addEventListener("pagehide", function () { flush(true); });
  if (early.forEach) early.forEach(function (call) { var f = api[call[0]]; if (f) f.apply(api, [].slice.call(call, 1)); });
})(window, document);
