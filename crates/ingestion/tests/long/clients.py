"""Sends one page view and one order of 29.34 EUR by customer 42 through the client library named first:
clients.py CLIENT ORIGIN KEY. Fails when the library reports an error."""

import sys

client, origin, key = sys.argv[1:]
order = {"order_id": "1001", "revenue": 29.34, "currency": "EUR"}


def fail(error, items):
    raise SystemExit(f"{error}: {items}")


def segment():
    import segment.analytics as analytics

    analytics.write_key, analytics.host, analytics.gzip = key, origin, True
    analytics.on_error, analytics.sync_mode = fail, True
    analytics.page("42", "shop", "Shoes")
    analytics.track("42", "Order Completed", order)
    analytics.flush()


def rudderstack():
    import rudderstack.analytics as analytics

    analytics.write_key, analytics.dataPlaneUrl, analytics.gzip = key, origin, True
    analytics.on_error, analytics.sync_mode = fail, True
    analytics.page("42", "shop", "Shoes")
    analytics.track("42", "Order Completed", order)
    analytics.flush()


def posthog():
    from posthog import Posthog

    sender = Posthog(key, host=origin, on_error=fail, sync_mode=True, gzip=True)
    sender.capture("$pageview", distinct_id="42", properties={"$current_url": "https://shop.example/"})
    sender.capture("Order Completed", distinct_id="42", properties=order)
    sender.shutdown()


def snowplow():
    from snowplow_tracker import Emitter, PageView, SelfDescribing, SelfDescribingJson, Subject, Tracker

    host, port = origin.removeprefix("http://").split(":")
    lost = []
    emitter = Emitter(host, protocol="http", port=int(port), method="post", batch_size=1,
                      on_failure=lambda sent, unsent: lost.append(unsent))
    subject = Subject()
    subject.set_user_id("42")
    tracker = Tracker(namespace="sp", emitters=emitter, subject=subject, app_id=key)
    tracker.track(PageView(page_url="https://shop.example/", page_title="Shoes"))
    vendor = "iglu:com.snowplowanalytics.snowplow.ecommerce"
    action = SelfDescribingJson(f"{vendor}/snowplow_ecommerce_action/jsonschema/1-0-2", {"type": "transaction"})
    entity = SelfDescribingJson(
        f"{vendor}/transaction/jsonschema/1-0-0",
        {"transaction_id": "1001", "revenue": 29.34, "currency": "EUR", "payment_method": "card"})
    tracker.track(SelfDescribing(event_json=action, context=[entity]))
    tracker.flush()
    if lost:
        fail("not sent", lost)


def cloudevents():
    import requests
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    def attributes(kind, number):
        return {"id": number, "source": "/shop", "type": kind, "specversion": "1.0", "subject": "42",
                "datacontenttype": "application/json"}

    page = CloudEvent(attributes("com.shop.page.view", "1"), {"title": "Shoes"})
    bought = CloudEvent(attributes("com.shop.order.completed", "2"), {"user_id": "42", **order})
    for message in (to_binary_event(page), to_structured_event(bought)):
        answer = requests.post(origin + "/cloudevents", data=message.body,
                               headers={**message.headers, "Authorization": f"Bearer {key}"}, timeout=10)
        answer.raise_for_status()


{"segment": segment, "rudderstack": rudderstack, "posthog": posthog, "snowplow": snowplow,
 "cloudevents": cloudevents}[client]()
