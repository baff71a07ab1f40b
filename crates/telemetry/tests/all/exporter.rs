//! A loaded exporter behind a real address, without a vigie: every handle is used before each scrape.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use vigie_telemetry::{
    AuditVerdict, BuildInfo, Cause, Decision, Delivered, Exporter, FlagEnd, Judged, Metrics, Outcome, Portfolio,
    RefusalReason, Stopwatch,
};

/// Counts one of everything that the dashboards draw.
fn load(metrics: &Metrics, round: u64) {
    let judged = Judged {
        tenths: [(20, 5.5, 6); 10],
        variance: 39.0,
        log_loss: 0.57,
    };
    metrics.calibration.judged(&judged, &judged);
    let ms = |ms: u64| Duration::from_millis(ms + round % 7);
    metrics.ready(true);
    metrics.disk.room(900_000_000 - round, 1_000_000_000);
    metrics
        .model
        .in_force("btyd@1", "policies@1", Duration::from_secs(1_700_000_000));
    for workspace in ["acme", "shop"] {
        metrics.events.accepted(workspace, 10);
        metrics.events.in_flight(workspace, round % 3);
        for outcome in Outcome::ALL {
            metrics.events.outcome(workspace, *outcome, 2);
        }
    }
    metrics.events.rejected("body_too_large", 1);
    metrics.events.acknowledged(ms(4));
    metrics.events.dead_letters("too_old", 1);
    metrics.events.duplicates("segment", 2);
    for signal in [
        "purchase",
        "refund",
        "page.view",
        "email.sent",
        "email.delivered",
        "email.open",
        "email.click",
        "email.bounce",
        "email.complaint",
        "email.unsubscribe",
    ] {
        metrics.events.applied(signal, 3);
    }
    for endpoint in ["/v1/events", "/v1/relances"] {
        metrics.http.request(endpoint, 200, ms(3));
    }
    metrics.http.connected();
    metrics.log.appended(ms(4));
    metrics.log.append_failed("overloaded");
    metrics.log.fsync(ms(3));
    metrics.log.size(1_000 * round);
    for partition in 0..4 {
        metrics.log.end_offset(partition, 10 * round + 5);
        metrics.pipeline.progress(partition, 10 * round, 10 * round + 5);
        metrics.pipeline.watermark_age(partition, ms(200));
    }
    metrics.pipeline.step(100, ms(8));
    metrics.pipeline.event_to_score(ms(20));
    for cause in Cause::ALL {
        metrics.pipeline.customers_touched(*cause, 5);
    }
    metrics.pipeline.scores_written(5);
    metrics.pipeline.timer_fired(ms(900));
    metrics.pipeline.timers_overdue(1, ms(300));
    metrics.pipeline.ticks_appended(1);
    metrics.canary.seen(ms(30));
    metrics.canary.lost();
    metrics.store.loaded(ms(1));
    metrics.store.committed(ms(2));
    metrics.store.commit_failed();
    metrics.store.commit_fenced();
    for outcome in ["event", "dead_letter", "tombstone"] {
        metrics.source.read("till", outcome, 5);
    }
    metrics.source.worked("till", 500, 1);
    metrics.source.state("till", 3, true);
    metrics.archive.wrote(50);
    metrics.archive.lag(20, ms(5_000));
    metrics.archive.failed();
    for verdict in AuditVerdict::ALL {
        metrics.audit.ran(*verdict, 0, 100);
    }
    for decision in [Decision::Flagged, Decision::HeldOut] {
        metrics.relance.decided("win-back", decision, 1);
    }
    for reason in RefusalReason::ALL {
        metrics.relance.refused("win-back", *reason, 4);
    }
    for end in FlagEnd::ALL {
        metrics.relance.ended("win-back", *end, 1);
    }
    for outcome in Delivered::ALL {
        metrics.delivery.ended("crm", *outcome, 1);
    }
    metrics.delivery.state("crm", ms(1_000), 1, true);
    metrics.relance.moved("risk", round.is_multiple_of(2), 1);
    let tiers = [[[3.0 + round as f64, 200.0, 40.0, 900.0]; 4]; 3];
    let base = Portfolio {
        stages: [7 + round; 9],
        complaints: [(2, ms(5_000)); 6],
        currencies: [("EUR".to_owned(), tiers)].into(),
    };
    metrics
        .portfolio
        .counted(ms(1_795_000_000_000), &[("shop".to_owned(), base)].into());
}

/// Serves scrapes until the process ends. Each request loads the exporter first; its number is sent when it was answered.
pub(crate) fn serve() -> (SocketAddr, Receiver<u64>) {
    let exporter = Exporter::new(BuildInfo {
        version: "0.0.0",
        revision: "test",
    })
    .unwrap();
    let metrics = exporter.metrics(Stopwatch::stopped());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (answered, answers) = channel();
    let _detached = std::thread::spawn(move || {
        for (round, stream) in (1..).zip(listener.incoming()) {
            let Ok(mut stream) = stream else { continue };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            load(&metrics, round);
            exporter.upkeep();
            let page = exporter.render();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
            if stream.write_all(answer.as_bytes()).is_ok() && answered.send(round).is_err() {
                return;
            }
        }
    });
    (address, answers)
}

/// The page of a loaded exporter.
pub(crate) fn page() -> String {
    let exporter = Exporter::new(BuildInfo {
        version: "0.0.0",
        revision: "test",
    })
    .unwrap();
    let metrics = exporter.metrics(Stopwatch::stopped());
    load(&metrics, 1);
    exporter.upkeep();
    exporter.render()
}
