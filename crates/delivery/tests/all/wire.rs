//! The way out over real sockets: what is sent, what counts as an answer, and where nothing is ever connected to.

use crate::support::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver as Calls, channel};
use std::sync::{Arc, Mutex};
use vigie_delivery::message::Parcel;
use vigie_delivery::{Answer, Exit, Failure, FlagView, HttpExit, signature};
use vigie_event::FlagId;

/// A request as it arrived.
pub(crate) struct Arrived {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// A server on loopback that gives each connection to `serve`; the thread ends with the test.
pub(crate) fn server(serve: impl Fn(TcpStream, Arrived) + Send + 'static) -> (u16, Calls<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connected, connections) = channel();
    drop(std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if connected.send(()).is_err() {
                return;
            }
            if let Some(arrived) = read(&stream) {
                serve(stream, arrived);
            }
        }
    }));
    (port, connections)
}

fn read(stream: &TcpStream) -> Option<Arrived> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut arrived = Arrived { head, body: Vec::new() };
    let length: usize = arrived.header("content-length")?.parse().ok()?;
    arrived.body.resize(length, 0);
    reader.read_exact(&mut arrived.body).ok()?;
    Some(arrived)
}

/// A destination on loopback.
pub(crate) fn local(port: u16, more: &str) -> Arc<vigie_delivery::Destination> {
    let open = format!("allow-http = true\nallow-ports = [{port}]\nallow-private = [\"127.0.0.1\", \"::1\"]\n{more}");
    destination("local", &format!("http://127.0.0.1:{port}/hooks"), &open)
}

pub(crate) fn parcel(number: u64, customer: &str) -> Parcel {
    let body = flag(number, customer, START);
    let raw = bytes(&body);
    let flag = FlagView::read(&raw).unwrap();
    Parcel {
        id: flag.id,
        workspace: shop(),
        customer: flag.customer,
        raised_at: flag.raised_at,
        flag: flag.body,
        raw: raw.into(),
    }
}

fn bytes(body: &serde_json::Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

pub(crate) async fn send(destination: Arc<vigie_delivery::Destination>, parcel: &Parcel) -> Answer {
    let exit = HttpExit::new(destination, Hand::new().clock()).unwrap();
    exit.send(parcel).await
}

fn status(code: u16) -> Answer {
    Answer::Status {
        code,
        retry_after: None,
    }
}

#[tokio::test]
async fn a_webhook_arrives_signed_with_the_flag_as_stored() {
    let arrived = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&arrived);
    let (port, _connections) = server(move |mut stream, request| {
        *keep.lock().unwrap() = Some(request);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    let parcel = parcel(7, "C \"ü\u{2028}1");
    assert_eq!(send(local(port, ""), &parcel).await, status(204));
    let request = arrived.lock().unwrap().take().unwrap();
    let header = |name: &str| request.header(name).unwrap();
    assert!(request.head.starts_with("POST /hooks HTTP/1.1\r\n"));
    assert_eq!(header("webhook-id"), id(7).to_string());
    assert_eq!(header("content-type"), "application/json");
    let secrets = [signature::Secret::parse(SECRET).unwrap()];
    let (timestamp, signed) = (header("webhook-timestamp"), header("webhook-signature"));
    signature::verify(&secrets, header("webhook-id"), timestamp, signed, &request.body, START).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["type"], "customer.relance.flagged");
    assert_eq!(body["timestamp"], START.to_string());
    assert_eq!(body["data"], parcel.flag);
    let raw = parcel.raw.to_vec();
    assert!(request.body.windows(raw.len()).any(|part| part == raw), "byte for byte");
}

#[tokio::test]
async fn only_2xx_is_success_and_no_redirect_is_followed() {
    let (elsewhere, followed) = server(|_, _| {});
    for code in [
        200u16, 201, 202, 299, 300, 301, 302, 303, 307, 308, 400, 401, 404, 410, 422, 429, 500, 502, 503,
    ] {
        let (port, _connections) = server(move |mut stream, _| {
            let head =
                format!("HTTP/1.1 {code} X\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
        });
        let answer = send(local(port, ""), &parcel(1, "C1")).await;
        assert_eq!(answer, status(code));
        assert_eq!(answer.is_success(), (200..300).contains(&code), "{code}");
    }
    assert!(followed.try_recv().is_err(), "nobody came by the redirects");
}

#[tokio::test]
async fn receivers_that_break_off_stall_or_talk_too_much_are_bounded() {
    let (port, _connections) = server(|stream, _| drop(stream));
    let answer = send(local(port, ""), &parcel(1, "C1")).await;
    assert!(
        matches!(answer, Answer::Failed(Failure::Connection | Failure::Protocol)),
        "{answer:?}"
    );

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(
        send(local(closed, ""), &parcel(1, "C1")).await,
        Answer::Failed(Failure::Connection)
    );

    let held = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&held);
    let (port, _connections) = server(move |stream, _| keep.lock().unwrap().push(stream));
    assert_eq!(
        send(local(port, "timeout = \"1s\""), &parcel(1, "C1")).await,
        Answer::Failed(Failure::Timeout)
    );

    let (port, _connections) = server(|mut stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
            .unwrap();
        let page = [b'x'; 65_536];
        while stream.write_all(&page).is_ok() {}
    });
    assert_eq!(
        send(local(port, ""), &parcel(1, "C1")).await,
        status(200),
        "the rest is not read"
    );

    let (port, _connections) = server(|mut stream, _| stream.write_all(b"SMTP ready\r\n\r\n").unwrap());
    let answer = send(local(port, ""), &parcel(1, "C1")).await;
    assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
}

#[tokio::test]
async fn addresses_that_are_not_public_are_never_connected_to() {
    let (port, connections) = server(|_, _| {});
    for host in [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("http://{host}:{port}/");
        let open = format!("allow-http = true\nallow-ports = [{port}]\ntimeout = \"2s\"");
        let answer = send(destination("local", &url, &open), &parcel(1, "C1")).await;
        assert_eq!(answer, Answer::Failed(Failure::Refused), "{host}");
        // Another range that is allowed opens nothing here.
        let open = format!("{open}\nallow-private = [\"10.0.0.0/8\"]");
        let answer = send(destination("local", &url, &open), &parcel(1, "C1")).await;
        assert_eq!(answer, Answer::Failed(Failure::Refused), "{host}");
    }
    for host in [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ] {
        let answer = send(destination("local", &format!("https://{host}/"), ""), &parcel(1, "C1")).await;
        assert_eq!(answer, Answer::Failed(Failure::Refused), "{host}");
    }
    assert!(connections.try_recv().is_err(), "no connection was made");
}

/// The other half of the next test: one delivery, in a process whose environment names a proxy.
#[tokio::test]
async fn delivers_past_the_environment() {
    let (port, connections) = server(|mut stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap()
    });
    assert_eq!(send(local(port, ""), &parcel(1, "C1")).await, status(200));
    assert!(connections.try_recv().is_ok());
}

#[test]
fn proxies_of_the_environment_are_ignored() {
    let (port, connections) = server(|_, _| {});
    let proxy = format!("http://127.0.0.1:{port}");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        let _ = command.env(name, &proxy);
    }
    let output = command
        .args(["--exact", "wire::delivers_past_the_environment"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(connections.try_recv().is_err(), "nobody asked the proxy");
}

#[tokio::test]
async fn the_segment_shape_is_what_segments_own_libraries_send() {
    let arrived = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&arrived);
    let (port, _connections) = server(move |mut stream, request| {
        *keep.lock().unwrap() = Some(request);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let entry = format!(
        "[[destination]]\nname = \"cdp\"\nkind = \"segment\"\nurl = \"http://127.0.0.1:{port}/v1/batch\"\nwrite-key = \"env:K\"\n\
         allow-http = true\nallow-ports = [{port}]\nallow-private = [\"127.0.0.1\"]"
    );
    for (customer, field, person) in [("C1", "userId", "C1"), ("anonymous:d9", "anonymousId", "d9")] {
        let mut found = vigie_delivery::Destinations::parse(&entry, &|_| Ok("wk-1".to_owned())).unwrap();
        assert_eq!(
            send(Arc::new(found.0.remove(0)), &parcel(5, customer)).await,
            status(200)
        );
        let request = arrived.lock().unwrap().take().unwrap();
        assert_eq!(
            request.header("authorization"),
            Some("Basic d2stMTo="),
            "wk-1: in base64"
        );
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let call = &body["batch"][0];
        assert_eq!(
            (&call["type"], &call["event"]),
            (&"track".into(), &"Relance Flag Set".into())
        );
        assert_eq!(call["messageId"], FlagId(5u128.to_be_bytes()).to_string());
        assert_eq!(
            (&call[field], &call["properties"]["policy"]),
            (&person.into(), &"win-back".into())
        );
    }
}

#[tokio::test]
async fn presets_send_their_body_and_their_key() {
    let arrived = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&arrived);
    let (port, _connections) = server(move |mut stream, request| {
        *keep.lock().unwrap() = Some(request);
        stream
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let entry = format!(
        "[[destination]]\nname = \"brevo\"\nkind = \"template\"\npreset = \"brevo\"\nurl = \"http://127.0.0.1:{port}/v3/events\"\n\
         secret-headers = {{ api-key = \"env:K\" }}\nallow-http = true\nallow-ports = [{port}]\nallow-private = [\"127.0.0.1\"]"
    );
    let mut found = vigie_delivery::Destinations::parse(&entry, &|_| Ok("xkeysib-1".to_owned())).unwrap();
    let destination = Arc::new(found.0.remove(0));
    assert!(!format!("{destination:?}").contains("xkeysib"));
    assert_eq!(send(destination, &parcel(5, "C\"1\\")).await, status(201));
    let request = arrived.lock().unwrap().take().unwrap();
    assert_eq!(request.header("api-key"), Some("xkeysib-1"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["identifiers"]["ext_id"], "C\"1\\");
    assert_eq!(body["event_properties"]["score"], 0.71);
}

#[test]
fn notices_have_types_of_their_own() {
    for (kind, expected) in [
        ("recalled", "customer.relance.recalled"),
        ("band_changed", "customer.score.band"),
    ] {
        let mut parcel = parcel(7, "C1");
        parcel.flag["kind"] = kind.into();
        let body: serde_json::Value = serde_json::from_slice(&vigie_delivery::envelope(&parcel)).unwrap();
        assert_eq!(body["type"], expected);
    }
}
