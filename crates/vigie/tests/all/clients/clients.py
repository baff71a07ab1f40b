"""Drives one client library for Python: clients.py CLIENT ORIGIN KEY ORDERED_AT. Visitor a-1 looks at a page, turns out to
be customer 42, and orders for 29.34 EUR at ORDERED_AT (ISO 8601, in the past). Fails when the library reports an error."""

import sys
from datetime import datetime

client, origin, key, ordered_at = sys.argv[1:]
ordered = datetime.fromisoformat(ordered_at.replace("Z", "+00:00"))
order = {"order_id": "1001", "revenue": 29.34, "currency": "EUR"}
page = "https://shop.example/shoes"


def fail(error, items):
    raise SystemExit(f"{error}: {items}")


def segment_like(analytics):
    analytics.write_key, analytics.gzip = key, True
    analytics.on_error, analytics.sync_mode = fail, True
    analytics.page(None, "shop", "Shoes", {"url": page}, anonymous_id="a-1")
    analytics.identify("42", {"plan": "gold"}, anonymous_id="a-1")
    analytics.track("42", "Order Completed", order, timestamp=ordered)
    analytics.flush()


def segment():
    import segment.analytics as analytics

    analytics.host = origin
    segment_like(analytics)


def rudderstack():
    import rudderstack.analytics as analytics

    analytics.dataPlaneUrl = origin
    segment_like(analytics)


def posthog():
    from posthog import Posthog

    sender = Posthog(key, host=origin, on_error=fail, sync_mode=True, gzip=True)
    looked = {"$current_url": page, "title": "Shoes", "$device_id": "a-1"}
    sender.capture("$pageview", distinct_id="a-1", properties=looked)
    sender.alias("a-1", "42")
    sender.capture("Order Completed", distinct_id="42", properties=order, timestamp=ordered)
    sender.shutdown()


def snowplow():
    from snowplow_tracker import Emitter, PageView, SelfDescribing, SelfDescribingJson, Subject, Tracker

    host, port = origin.removeprefix("http://").split(":")
    lost = []
    emitter = Emitter(host, protocol="http", port=int(port), method="post", batch_size=1,
                      on_failure=lambda sent, unsent: lost.append(unsent))
    subject = Subject()
    subject.set_domain_user_id("a-1")
    tracker = Tracker(namespace="sp", emitters=emitter, subject=subject, app_id=key)
    tracker.track(PageView(page_url=page, page_title="Shoes"))
    subject.set_user_id("42")
    vendor = "iglu:com.snowplowanalytics.snowplow.ecommerce"
    action = SelfDescribingJson(f"{vendor}/snowplow_ecommerce_action/jsonschema/1-0-2", {"type": "transaction"})
    bought = SelfDescribingJson(
        f"{vendor}/transaction/jsonschema/1-0-0",
        {"transaction_id": "1001", "revenue": 29.34, "currency": "EUR", "payment_method": "card"})
    tracker.track(SelfDescribing(event_json=action, context=[bought], true_timestamp=ordered.timestamp() * 1000))
    tracker.flush()
    if lost:
        fail("not sent", lost)


def cloudevents():
    import requests
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent

    def attributes(kind, number, **more):
        return {"id": number, "source": "/shop", "type": kind, "specversion": "1.0", "subject": "42",
                "datacontenttype": "application/json", **more}

    looked = CloudEvent(attributes("com.shop.page.view", "1"), {"title": "Shoes"})
    bought = CloudEvent(attributes("com.shop.order.completed", "2", time=ordered), order)
    for message in (to_binary_event(looked), to_structured_event(bought)):
        answer = requests.post(origin + "/cloudevents", data=message.body,
                               headers={**message.headers, "Authorization": f"Bearer {key}"}, timeout=10)
        answer.raise_for_status()


{"segment": segment, "rudderstack": rudderstack, "posthog": posthog, "snowplow": snowplow,
 "cloudevents": cloudevents}[client]()
