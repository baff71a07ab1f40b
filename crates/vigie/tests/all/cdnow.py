"""Posts the purchases of the CDNOW sample up to a day with Segment's own Python client, unmodified: every event twice,
in two passes with an order of their own. It never looks at how the client sends.

Prints one JSON line: how many events the data hold up to that day. Ends with 1 if the client reports an error.
"""

import argparse
import csv
import datetime
import gzip
import json
import os
import random
import sys

from segment.analytics import Client


def purchases(path, until):
    """(line, customer, noon of the day, amount) of every purchase up to and including `until`."""
    with gzip.open(path, "rt", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=1):
            day = datetime.date.fromisoformat(row["date"])
            if day <= until:
                noon = datetime.datetime(day.year, day.month, day.day, 12, tzinfo=datetime.timezone.utc)
                yield line, row["sample_id"], noon, float(row["amount"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--until", required=True, type=datetime.date.fromisoformat)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()

    rows = list(purchases(options.data, options.until))
    errors = []
    client = Client(
        os.environ["WRITE_KEY"],
        host=options.host,
        gzip=options.gzip,
        max_queue_size=len(rows),
        on_error=lambda error, items: errors.append(f"{len(items)} events: {error}"),
    )
    order = random.Random(options.seed)
    for _ in range(2):
        order.shuffle(rows)
        for line, customer, noon, amount in rows:
            queued, _message = client.track(
                customer,
                "Order Completed",
                {"revenue": amount, "currency": "USD"},
                timestamp=noon,
                message_id=f"cdnow-{line:05}",
            )
            if not queued:
                errors.append(f"line {line} was not queued")
        client.flush()
    client.join()
    print(json.dumps({"events": len(rows)}))
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
