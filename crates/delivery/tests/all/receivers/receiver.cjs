// A receiver of webhooks that verifies them with the reference library (v1) and with Node's own crypto (v1a), and signs one
// message with the library at the start.
const crypto = require("node:crypto");
const http = require("node:http");
const { Webhook } = require("standardwebhooks");

const webhook = new Webhook(process.env.SECRET);
// An ed25519 public key as SubjectPublicKeyInfo (RFC 8410).
const raw = Buffer.from(process.env.PUBLIC.replace("whpk_", ""), "base64");
const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
const publicKey = crypto.createPublicKey({ key: spki, format: "der", type: "spki" });

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    const { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": signatures } = request.headers;
    const told = { id, verified: false, v1a: false };
    try {
      told.customer = webhook.verify(body.toString(), request.headers).data.customer;
      told.verified = true;
    } catch (error) {
      told.error = String(error);
    }
    const signed = Buffer.concat([Buffer.from(`${id}.${time}.`), body]);
    for (const part of signatures.split(" ")) {
      const [version, value] = part.split(",");
      if (version === "v1a") told.v1a = crypto.verify(null, signed, publicKey, Buffer.from(value, "base64"));
    }
    response.statusCode = told.verified ? 200 : 400;
    response.end();
    console.log(JSON.stringify(told));
  });
});
server.listen(0, "127.0.0.1", () => {
  const now = new Date(Math.floor(Date.now() / 1000) * 1000);
  const body = JSON.stringify({ type: "test", data: { é: "\u{1F98A}" } });
  const seconds = String(now.getTime() / 1000);
  const signature = webhook.sign("msg_theirs", now, body);
  const hello = { port: server.address().port, now: Number(seconds), id: "msg_theirs", timestamp: seconds, signature, body };
  console.log(JSON.stringify(hello));
});
