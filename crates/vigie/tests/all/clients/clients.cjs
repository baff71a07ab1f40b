// Drives one client library for Node: clients.cjs CLIENT ORIGIN KEY ORDERED_AT. Visitor a-1 looks at a page, turns out to be
// customer 42, and orders for 29.34 EUR at ORDERED_AT (ISO 8601, in the past). Fails when the library reports an error.
"use strict";

const [client, origin, key, orderedAt] = process.argv.slice(2);
const order = { order_id: "1001", revenue: 29.34, currency: "EUR" };
const traits = { plan: "gold" };
const page = "https://shop.example/shoes";

function fail(error) {
  console.error(error);
  process.exit(1);
}

const called = (method, ...args) =>
  new Promise((done, failed) => method(...args, (error) => (error ? failed(error) : done())));

const clients = {
  async segment() {
    const { Analytics } = require("@segment/analytics-node");
    const analytics = new Analytics({ writeKey: key, host: origin });
    analytics.on("error", fail);
    analytics.page({ anonymousId: "a-1", name: "Shoes", properties: { url: page } });
    analytics.identify({ userId: "42", anonymousId: "a-1", traits });
    analytics.track({ userId: "42", event: "Order Completed", properties: order, timestamp: new Date(orderedAt) });
    await analytics.closeAndFlush();
  },
  async segment_legacy() {
    const Analytics = require("analytics-node");
    const analytics = new Analytics(key, { host: origin, flushAt: 100, errorHandler: fail });
    analytics.page({ anonymousId: "a-1", name: "Shoes", properties: { url: page } });
    analytics.identify({ userId: "42", anonymousId: "a-1", traits });
    analytics.track({ userId: "42", event: "Order Completed", properties: order, timestamp: new Date(orderedAt) });
    await called(analytics.flush.bind(analytics));
  },
  async rudderstack() {
    const Analytics = require("@rudderstack/rudder-sdk-node");
    const analytics = new Analytics(key, { dataPlaneUrl: origin, errorHandler: fail });
    analytics.page({ anonymousId: "a-1", name: "Shoes", properties: { url: page } });
    analytics.identify({ userId: "42", anonymousId: "a-1", traits });
    analytics.track({ userId: "42", event: "Order Completed", properties: order, timestamp: new Date(orderedAt) });
    await called(analytics.flush.bind(analytics));
  },
  async posthog() {
    const { PostHog } = require("posthog-node");
    const posthog = new PostHog(key, { host: origin, flushAt: 100 });
    posthog.on("error", fail);
    posthog.capture({ distinctId: "a-1", event: "$pageview", properties: { $current_url: page, title: "Shoes", $device_id: "a-1" } });
    posthog.identify({ distinctId: "42", properties: { $set: traits, $anon_distinct_id: "a-1" } });
    posthog.capture({ distinctId: "42", event: "Order Completed", properties: order, timestamp: new Date(orderedAt) });
    await posthog.shutdown();
  },
  async snowplow() {
    const { newTracker, buildPageView, buildSelfDescribingEvent } = require("@snowplow/node-tracker");
    const { hostname, port } = new URL(origin);
    const answered = (error) => error && fail(error);
    const tracker = newTracker(
      { namespace: "sp", appId: key, encodeBase64: true },
      { endpoint: hostname, port: Number(port), protocol: "http", eventMethod: "post", bufferSize: 1, onRequestFailure: fail, callback: answered });
    tracker.setDomainUserId("a-1");
    tracker.track(buildPageView({ pageUrl: page, pageTitle: "Shoes" }));
    tracker.setUserId("42");
    const vendor = "iglu:com.snowplowanalytics.snowplow.ecommerce";
    const action = { schema: `${vendor}/snowplow_ecommerce_action/jsonschema/1-0-2`, data: { type: "transaction" } };
    const bought = { transaction_id: "1001", revenue: 29.34, currency: "EUR", payment_method: "card" };
    tracker.track(
      buildSelfDescribingEvent({ event: action }),
      [{ schema: `${vendor}/transaction/jsonschema/1-0-0`, data: bought }],
      { type: "ttm", value: Date.parse(orderedAt) });
    await tracker.flush?.();
  },
  async cloudevents() {
    const { CloudEvent, HTTP, httpTransport, emitterFor, Mode } = require("cloudevents");
    const sent = [];
    const transport = httpTransport(`${origin}/cloudevents?key=${key}`);
    const keep = (message, options) => {
      const answer = transport(message, options);
      sent.push(answer);
      return answer;
    };
    const common = { source: "/shop", subject: "42" };
    const looked = new CloudEvent({ ...common, id: "1", type: "com.shop.page.view", data: { title: "Shoes" } });
    const bought = new CloudEvent({ ...common, id: "2", type: "com.shop.order.completed", time: orderedAt, data: order });
    await emitterFor(keep, { binding: HTTP, mode: Mode.BINARY })(looked);
    await emitterFor(keep, { binding: HTTP, mode: Mode.STRUCTURED })(bought);
    await Promise.all(sent);
  },
  async matomo() {
    const MatomoTracker = require("matomo-tracker");
    const matomo = new MatomoTracker(1, `${origin}/matomo.php`, true);
    matomo.on("error", fail);
    const common = { token_auth: key, _id: "00000000000000a1" };
    await new Promise((done) => {
      matomo.trackBulk([
        { ...common, url: page, action_name: "Shoes" },
        { ...common, uid: "42", url: page, idgoal: "0", ec_id: "1001", revenue: "29.34", cdt: String(Math.floor(Date.parse(orderedAt) / 1000)) },
      ], done);
    });
  },
};

clients[client]().catch(fail);
