"""A receiver of webhooks that verifies them with the reference library, and signs one message with it at the start."""

import http.server
import json
import os
import ssl
import sys
import threading
import time
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook

webhook = Webhook(os.environ["SECRET"])
fail_every = int(os.environ.get("FAIL_EVERY", "0"))
calls = 0
turn = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with turn:
            self.answer(body)

    def answer(self, body):
        global calls
        calls += 1
        told = {"id": self.headers["webhook-id"], "verified": False}
        try:
            told["customer"] = webhook.verify(body, dict(self.headers))["data"]["customer"]
            told["verified"] = True
        except Exception as error:
            told["error"] = str(error)
        failed = fail_every and calls % fail_every == 0
        told["status"] = 500 if failed else 200 if told["verified"] else 400
        self.send_response(told["status"])
        self.send_header("content-length", "0")
        self.end_headers()
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if "CERTIFICATE" in os.environ:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["CERTIFICATE"], os.environ["KEY"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
now = datetime.fromtimestamp(int(time.time()), timezone.utc)
body = json.dumps({"type": "test", "data": {"é": "\U0001F98A"}})
hello = {
    "port": server.server_address[1],
    "now": int(now.timestamp()),
    "id": "msg_theirs",
    "timestamp": str(int(now.timestamp())),
    "signature": webhook.sign(msg_id="msg_theirs", timestamp=now, data=body),
    "body": body,
}
print(json.dumps(hello), flush=True)
server.serve_forever()
