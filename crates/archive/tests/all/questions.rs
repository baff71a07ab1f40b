//! Answers in SQL: equal to what plain code computes, within their limits, in every format, from as few files as possible.

use crate::support::{Logs, open, ordered, run, workspace};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use vigie_archive::sql::{
    Answer, CustomerRow, Database, DeadLetterRow, Filter, FlagRow, Format, Limits, Live, LiveRows,
};
use vigie_archive::{Archive, ArchiveError, Mode, Place, Row, Wanted};
use vigie_event::{
    Body, Currency, Day, EventId, Findings, Judgement, Money, Offset, Partition, PersonId, PersonIds, Position, Record,
    SessionVerdict, Signal, TimeVerdict, Timestamp, Workspace,
};

/// Noon of 2026-11-20.
const NOON: i64 = crate::support::START + 43_200_000;
const DAY: i64 = 86_400_000;

/// Live rows of two workspaces, and how often they were asked for.
#[derive(Default)]
pub(crate) struct TwoShops {
    pub(crate) asked: AtomicUsize,
    pub(crate) broken: bool,
}

fn customer(of: &str, id: &str, attrition: f64) -> CustomerRow {
    CustomerRow {
        workspace: workspace(of),
        customer: id.to_owned(),
        attrition: Some(attrition),
        churn_30: Some(0.25),
        churn_90: None,
        churn_365: Some(0.5),
        p_alive_bgnbd: None,
        p_alive_mbgnbd: Some(0.75),
        stage: "active".to_owned(),
        purchases: 3,
        revenue_minor: Some(12_345),
        currency: Some("EUR".to_owned()),
        first_activity: Some(Timestamp(NOON)),
        last_activity: None,
        last_purchase_day: Some(Day(20_777)),
        active_days: 4,
        account: None,
        as_of: Timestamp(NOON),
        model: "m1".to_owned(),
    }
}

impl Live for TwoShops {
    fn customers<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, CustomerRow> {
        let _ = self.asked.fetch_add(1, Ordering::Relaxed);
        let broken = self.broken;
        Box::pin(async move {
            if broken {
                return Err("the store is closed".to_owned());
            }
            Ok(vec![
                customer("shop", "c1", 0.5),
                customer("rival", "RIVAL-c", 0.9),
                customer("shop", "c2", 0.125),
            ])
        })
    }

    fn flags<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, FlagRow> {
        let flag = |of: &str, id: &str| FlagRow {
            id: id.to_owned(),
            workspace: workspace(of),
            customer: "c1".to_owned(),
            policy: "win-back".to_owned(),
            policy_version: "00aa".to_owned(),
            kind: "flagged".to_owned(),
            score: "churn-90".to_owned(),
            value: 0.8,
            threshold: 0.7,
            raised_at: Timestamp(NOON),
            stage: "at_risk".to_owned(),
            reasons: "no purchase for 90 days".to_owned(),
            model: "m1".to_owned(),
        };
        Box::pin(std::future::ready(Ok(vec![
            flag("shop", "f1"),
            flag("rival", "RIVAL-f"),
        ])))
    }

    fn dead_letters<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, DeadLetterRow> {
        let letter = |of: &str, id: &str| DeadLetterRow {
            id: id.to_owned(),
            workspace: workspace(of),
            received_at: Timestamp(NOON),
            step: "decode".to_owned(),
            code: "json".to_owned(),
            field: None,
            source: "segment".to_owned(),
            payload: format!("{id}{{"),
        };
        Box::pin(std::future::ready(Ok(vec![
            letter("shop", "d1"),
            letter("rival", "RIVAL-d"),
        ])))
    }
}

/// An archive with two workspaces over four days, four flushes, and a tail.
pub(crate) struct Shop {
    pub(crate) archive: Archive,
    pub(crate) rows: Vec<Row>,
    pub(crate) tail: Vec<Row>,
    pub(crate) live: Arc<TwoShops>,
}

fn row(offset: u64, of: &str, marker: &str, day: i64, decision: Option<Judgement>) -> Row {
    let mut logs = Logs::new(offset);
    let mut event = logs.event();
    let number = i64::try_from(offset).unwrap();
    event.workspace = workspace(of);
    event.id = EventId::new(&format!("{marker}{offset}")).unwrap();
    event.person = PersonIds {
        user: Some(PersonId::known(&format!("{marker}c{}", offset % 7)).unwrap()),
        anonymous: None,
        previous: None,
    };
    event.name = Some(format!("{marker}name").into());
    event.received_at = Timestamp(NOON + day * DAY + number);
    event.money = offset.is_multiple_of(3).then(|| Money {
        minor: number * 100 + 1,
        currency: Currency::parse(["EUR", "JPY", "KWD"][offset as usize / 3 % 3]).unwrap(),
    });
    event.payload = format!("{{\"secret\":\"{marker}{offset}\"}}").into();
    let judgement = decision.unwrap_or(Judgement::Applied(Findings {
        at: event.received_at,
        time: TimeVerdict::Client,
        signal: if event.money.is_some() {
            Signal::Purchase
        } else {
            Signal::PageView
        },
        channel: event.channel,
        human_permille: 900,
        session: SessionVerdict::Starts,
        conflict: offset.is_multiple_of(5),
    }));
    Row {
        position: Position {
            partition: Partition(0),
            offset: Offset(offset),
        },
        bytes: Bytes::from(Record::new(Body::Event(Box::new(event))).encode()),
        judgement,
    }
}

pub(crate) async fn shop() -> Shop {
    shop_in(&Place::parse("memory:///below").unwrap()).await
}

async fn shop_in(place: &Place) -> Shop {
    let archive = open(place, Mode::Write).await;
    let mut rows = Vec::new();
    let mut offset = 0;
    for day in 0..4 {
        for _ in 0..60 {
            let (of, marker) = if offset % 4 == 3 {
                ("rival", "RIVAL-")
            } else {
                ("shop", "")
            };
            let decision = match offset % 11 {
                4 => Some(Judgement::Forwarded),
                6 => Some(Judgement::Duplicate),
                _ => None,
            };
            rows.push(row(offset, of, marker, day, decision));
            offset += 1;
        }
    }
    for flush in rows.chunks(60) {
        let _ = archive.write(flush.to_vec()).await.unwrap();
    }
    // The first of these is archived by now: it must not appear twice.
    let tail = vec![
        rows[239].clone(),
        row(240, "shop", "", 4, None),
        row(241, "rival", "RIVAL-", 4, None),
    ];
    let live = Arc::new(TwoShops::default());
    Shop {
        archive,
        rows,
        tail,
        live,
    }
}

fn written(answer: &Answer, format: Format) -> String {
    let mut bytes = Vec::new();
    answer.write(format, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn csv(database: &Database, sql: &str) -> String {
    match database.query(sql, &Limits::default()).await {
        Ok(answer) => written(&answer, Format::Csv),
        Err(error) => panic!("{sql}: {error}"),
    }
}

#[test]
fn sql_agrees_with_plain_code() {
    run(async {
        let Shop {
            archive,
            rows,
            tail,
            live,
            ..
        } = shop().await;
        let database = Database::new(&archive, None, Timestamp(0))
            .with_live(live)
            .with_tail(&tail)
            .unwrap();
        // The oracle: decode each row of the log once more and count.
        let mut sums: BTreeMap<(String, String), (u64, i64)> = BTreeMap::new();
        let mut accepted = 0;
        for row in rows.iter().chain(&tail[1..]) {
            if row.judgement == Judgement::Forwarded {
                continue;
            }
            accepted += 1;
            let Ok(Record {
                body: Body::Event(event),
                ..
            }) = Record::decode(&row.bytes)
            else {
                panic!()
            };
            let Some(money) = event.money else { continue };
            let day = event.received_at.to_string()[..10].to_owned();
            let sum = sums.entry((event.workspace.to_string(), day)).or_default();
            sum.0 += 1;
            let thousandths = 10i64.pow(3 - money.currency.exponent());
            sum.1 += money.minor * thousandths;
        }
        let mut expected = "workspace,day,n,total\n".to_owned();
        for ((of, day), (n, total)) in &sums {
            expected += &format!("{of},{day},{n},{}.{:03}\n", total / 1000, total % 1000);
        }
        let sql = "SELECT workspace, day, count(*) AS n, sum(amount) AS total FROM events \
                   WHERE amount IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2";
        assert_eq!(csv(&database, sql).await, expected);
        assert_eq!(
            csv(&database, "SELECT count(*) AS n FROM events").await,
            format!("n\n{accepted}\n")
        );
        let sql = "SELECT kind, decision, reason, session, log_offset, event_id FROM events WHERE log_offset IN (5, 6, 15, 240)
                   ORDER BY log_offset";
        let expected = "kind,decision,reason,session,log_offset,event_id\n\
                        event,applied,id_conflict,starts,5,5\nevent,duplicate,,,6,6\n\
                        event,duplicate,,,17,17\n";
        let got = csv(&database, sql).await;
        assert!(
            got.starts_with(&expected[..expected.rfind("event,dup").unwrap()]),
            "{got}"
        );
        assert!(got.ends_with("event,applied,id_conflict,starts,240,240\n"), "{got}");
    });
}

#[test]
fn arbitrary_logs_can_be_asked_about() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(&Place::directory(directory.path()), Mode::Write).await;
        let mut logs = Logs::new(11);
        let mut model = Vec::new();
        for _ in 0..3 {
            let rows = logs.rows(200);
            model.extend(ordered(rows.clone()));
            let _ = archive.write(rows).await.unwrap();
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for row in &model {
            let event = match Record::decode(&row.bytes).map(|record| record.body) {
                Ok(Body::Event(event)) => event,
                Ok(Body::Forward(forward)) => forward.event,
                _ => continue,
            };
            if !matches!(row.judgement, Judgement::Forwarded | Judgement::Repeated) {
                *counts.entry(event.workspace.to_string()).or_default() += 1;
            }
        }
        for (of, count) in &counts {
            let bound = Database::new(&archive, Some(workspace(of)), Timestamp(0));
            assert_eq!(
                csv(&bound, "SELECT count(*) AS n FROM events").await,
                format!("n\n{count}\n"),
                "{of}"
            );
        }
        let free = Database::new(&archive, None, Timestamp(0));
        let answer = free.query("SELECT * FROM events", &Limits::default()).await.unwrap();
        assert_eq!(answer.rows() as u64, counts.values().sum::<u64>());
        for format in Format::ALL {
            answer.write(format, std::io::sink()).unwrap();
        }
    });
}

#[test]
fn files_that_cannot_matter_are_not_opened() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let Shop { archive, .. } = shop_in(&Place::directory(directory.path())).await;
        let database = Database::new(&archive, None, Timestamp(NOON + 2 * DAY));
        let files = |sql: &'static str| {
            let database = database.clone();
            async move { database.query(sql, &Limits::default()).await.unwrap().files() }
        };
        assert_eq!(files("SELECT count(*) FROM events").await, 8);
        assert_eq!(files("SELECT count(*) FROM customers").await, 0);
        assert_eq!(files("SELECT name FROM events WHERE workspace = 'shop'").await, 4);
        assert_eq!(files("SELECT name FROM events WHERE workspace = 'nobody'").await, 0);
        assert_eq!(files("SELECT name FROM events WHERE day = '2026-11-21'").await, 2);
        assert_eq!(
            files("SELECT name FROM events WHERE day IN ('2026-11-20', '2026-11-23') AND workspace = 'rival'").await,
            2
        );
        assert_eq!(
            files("SELECT name FROM events WHERE recorded_at >= '2026-11-22T00:00:00Z'").await,
            4
        );
        assert_eq!(
            files("SELECT name FROM events WHERE received_at < TIMESTAMP '2026-11-21T00:00:00Z'").await,
            2
        );
        assert_eq!(
            files("SELECT name FROM events WHERE recorded_at > now() - INTERVAL '12 hours'").await,
            4
        );
        // Whatever is pruned may be gone: only the day's own file is opened.
        for flush in archive.flushes() {
            for file in &flush.files {
                if file.day != "2026-11-21" {
                    std::fs::remove_file(directory.path().join(&file.path)).unwrap();
                }
            }
        }
        let sql = "SELECT count(*) AS n FROM events WHERE day = '2026-11-21'";
        let expected = (60..120).filter(|offset| offset % 11 != 4).count();
        assert_eq!(csv(&database, sql).await, format!("n\n{expected}\n"));
        let broken = database
            .query("SELECT count(name) FROM events", &Limits::default())
            .await;
        assert!(matches!(broken, Err(ArchiveError::Unavailable { .. })), "{broken:?}");
    });
}

#[test]
fn limits_end_questions_each_with_its_own_word() {
    run(async {
        let Shop { archive, .. } = shop().await;
        let database = Database::new(&archive, None, Timestamp(0));
        let few = Limits {
            rows: 10,
            ..Limits::default()
        };
        let answer = database
            .query("SELECT * FROM events ORDER BY log_offset", &few)
            .await
            .unwrap();
        assert_eq!((answer.rows(), answer.truncated()), (10, true));
        let answer = database
            .query("SELECT * FROM events ORDER BY log_offset LIMIT 10", &few)
            .await
            .unwrap();
        assert_eq!((answer.rows(), answer.truncated()), (10, false));
        let none = Limits {
            rows: 0,
            ..Limits::default()
        };
        let answer = database.query("SELECT 1", &none).await.unwrap();
        assert_eq!((answer.rows(), answer.truncated()), (0, true));

        let short = Limits {
            time: Duration::from_millis(200),
            ..Limits::default()
        };
        let endless = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";
        let late = database.query(endless, &short).await;
        assert!(matches!(late, Err(ArchiveError::TimeLimit { .. })), "{late:?}");
        let endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t";
        let late = database.query(endless, &short).await;
        assert!(
            matches!(
                late,
                Err(ArchiveError::TimeLimit { .. } | ArchiveError::MemoryLimit { .. })
            ),
            "{late:?}"
        );

        let small = Limits {
            memory_bytes: 1 << 20,
            rows: usize::MAX >> 1,
            ..Limits::default()
        };
        for hungry in [
            "SELECT value, count(*) FROM generate_series(1, 3000000) GROUP BY value ORDER BY 2, 1",
            "SELECT * FROM generate_series(1, 3000000)",
            "SELECT a.value FROM generate_series(1, 3000000) a JOIN generate_series(1, 3000000) b ON a.value = b.value ORDER BY 1",
        ] {
            let hungry = database.query(hungry, &small).await;
            assert!(
                matches!(hungry, Err(ArchiveError::MemoryLimit { limit: 1_048_576 })),
                "{hungry:?}"
            );
        }
    });
}

#[test]
fn hostile_depth_and_width_are_refused_or_survived() {
    run(async {
        let Shop { archive, .. } = shop().await;
        let database = Database::new(&archive, None, Timestamp(0));
        let chain = |n: usize, link: &str| format!("SELECT 1{}", link.repeat(n));
        for (n, fits) in [(490, true), (510, false), (5_000, false)] {
            for link in ["+1", " OR 1 = 1 ", " UNION ALL SELECT 1", "||'x'"] {
                let text = chain(if link.contains("OR") { n / 2 } else { n }, link);
                let result = database.query(&text, &Limits::default()).await;
                match result {
                    Ok(_) => assert!(fits, "{n} × {link}"),
                    Err(ArchiveError::Sql { .. }) => assert!(!fits || link.contains("OR"), "{n} × {link}: {result:?}"),
                    Err(other) => panic!("{n} × {link}: {other}"),
                }
            }
        }
        let parentheses = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
        let refused = database.query(&parentheses, &Limits::default()).await;
        assert!(matches!(refused, Err(ArchiveError::Sql { .. })), "{refused:?}");
        let list: String = (0..5_000).map(|n| format!("{n},")).collect();
        let flat = format!("SELECT count(*) FROM events WHERE log_offset IN ({list}5000)");
        assert_eq!(database.query(&flat, &Limits::default()).await.unwrap().rows(), 1);
        // Doubling forty times.
        let mut doubling = "WITH t0 AS (SELECT 1 AS a)".to_owned();
        for n in 1..40 {
            doubling += &format!(", t{n} AS (SELECT x.a FROM t{} x, t{} AS y)", n - 1, n - 1);
        }
        let refused = database
            .query(&format!("{doubling} SELECT * FROM t39"), &Limits::default())
            .await;
        assert!(matches!(refused, Err(ArchiveError::Sql { .. })), "{refused:?}");
        let refused = database
            .query("SELECT repeat('x', 2000000000)", &Limits::default())
            .await;
        assert!(matches!(refused, Err(ArchiveError::Sql { .. })), "{refused:?}");
    });
}

#[test]
fn live_tables_are_asked_only_when_named_and_once() {
    run(async {
        let Shop { archive, live, .. } = shop().await;
        let database = Database::new(&archive, Some(workspace("shop")), Timestamp(0)).with_live(Arc::clone(&live) as _);
        let _ = csv(&database, "SELECT count(*) FROM events").await;
        let _ = csv(&database, "SELECT count(*) FROM flags").await;
        assert_eq!(live.asked.load(Ordering::Relaxed), 0);
        let twice = "SELECT a.customer, b.attrition FROM customers a JOIN customers b USING (customer) ORDER BY 1";
        assert_eq!(csv(&database, twice).await, "customer,attrition\nc1,0.5\nc2,0.125\n");
        assert_eq!(live.asked.load(Ordering::Relaxed), 1);
        let joined = "SELECT c.customer, count(*) AS n FROM customers c JOIN events e ON e.customer = c.customer
                      AND e.workspace = c.workspace GROUP BY 1 ORDER BY 1";
        assert!(csv(&database, joined).await.starts_with("customer,n\nc1,"));
        let all = "SELECT * FROM customers WHERE customer = 'c1'";
        let expected = "shop,c1,0.5,0.25,,0.5,,0.75,active,3,12345,EUR,2026-11-20T12:00:00Z,,2026-11-20,4,\
                        ,2026-11-20T12:00:00Z,m1\n";
        assert!(
            csv(&database, all).await.ends_with(expected),
            "{}",
            csv(&database, all).await
        );
        assert!(csv(&database, "SELECT * FROM flags").await.ends_with(
            "f1,shop,c1,win-back,00aa,flagged,churn-90,0.8,0.7,2026-11-20T12:00:00Z,at_risk,no purchase for 90 days,m1\n"
        ));
        assert!(
            csv(&database, "SELECT * FROM dead_letters")
                .await
                .contains("d1,shop,2026-11-20T12:00:00Z,decode,json,,segment")
        );

        let broken = Arc::new(TwoShops {
            broken: true,
            ..TwoShops::default()
        });
        let database = Database::new(&archive, None, Timestamp(0)).with_live(broken);
        let error = database
            .query("SELECT * FROM customers", &Limits::default())
            .await
            .unwrap_err();
        assert_eq!(
            error,
            ArchiveError::Live {
                table: "customers",
                reason: "the store is closed".to_owned()
            }
        );
        for (table, columns) in database.tables() {
            let answer = Database::new(&archive, None, Timestamp(0))
                .query(&format!("SELECT * FROM {table} LIMIT 0"), &Limits::default())
                .await
                .unwrap();
            assert_eq!(answer.columns(), columns, "{table}");
            for column in columns {
                // No column needs quotes.
                let name = column.name;
                let sql = format!("SELECT {name} FROM {table} WHERE {name} IS NULL GROUP BY {name} ORDER BY {name}");
                let answer = Database::new(&archive, None, Timestamp(0))
                    .query(&sql, &Limits::default())
                    .await;
                assert_eq!(answer.unwrap().columns()[0].name, name, "{table}");
            }
        }
    });
}

#[test]
fn every_format_says_the_same() {
    run(async {
        let Shop { archive, .. } = shop().await;
        let database = Database::new(&archive, None, Timestamp(NOON));
        let sql = "SELECT log_offset, recorded_at, day, amount, currency, name, now() AS asked FROM events
                   WHERE log_offset IN (0, 1) ORDER BY log_offset";
        let answer = database.query(sql, &Limits::default()).await.unwrap();
        assert_eq!(
            written(&answer, Format::Csv),
            "log_offset,recorded_at,day,amount,currency,name,asked\n\
             0,2026-11-20T12:00:00Z,2026-11-20,0.010,EUR,name,2026-11-20T12:00:00Z\n\
             1,2026-11-20T12:00:00.001Z,2026-11-20,,,name,2026-11-20T12:00:00Z\n"
        );
        let lines = "{\"log_offset\":0,\"recorded_at\":\"2026-11-20T12:00:00Z\",\"day\":\"2026-11-20\",\"amount\":0.010,\
                     \"currency\":\"EUR\",\"name\":\"name\",\"asked\":\"2026-11-20T12:00:00Z\"}\n\
                     {\"log_offset\":1,\"recorded_at\":\"2026-11-20T12:00:00.001Z\",\"day\":\"2026-11-20\",\"amount\":null,\
                     \"currency\":null,\"name\":\"name\",\"asked\":\"2026-11-20T12:00:00Z\"}\n";
        assert_eq!(written(&answer, Format::JsonLines), lines);
        let array = format!("[{}]", lines.trim_end().replace('\n', ","));
        assert_eq!(written(&answer, Format::Json), array);
        let table = written(&answer, Format::Table);
        assert!(table.contains("| 0          | 2026-11-20T12:00:00Z "), "{table}");
        let mut parquet = Vec::new();
        answer.write(Format::Parquet, &mut parquet).unwrap();
        assert_eq!(
            (&parquet[..4], &parquet[parquet.len() - 4..]),
            (&b"PAR1"[..], &b"PAR1"[..])
        );

        let none = database
            .query("SELECT log_offset FROM events WHERE false", &Limits::default())
            .await
            .unwrap();
        assert_eq!(written(&none, Format::Json), "[]");
        assert_eq!(written(&none, Format::JsonLines), "");
        assert_eq!(written(&none, Format::Csv), "log_offset\n");
        let odd = "SELECT 'a,\"b\"' AS x, chr(27) AS escape, CAST('NaN' AS DOUBLE) AS nan";
        let odd = database.query(odd, &Limits::default()).await.unwrap();
        assert!(written(&odd, Format::Csv).contains("\"a,\"\"b\"\"\""));
        assert!(!written(&odd, Format::Table).contains('\u{1b}'));
        assert!(
            written(&odd, Format::JsonLines).contains("\"nan\":null"),
            "{}",
            written(&odd, Format::JsonLines)
        );
    });
}

#[test]
fn mistakes_are_explained() {
    run(async {
        let Shop { archive, .. } = shop().await;
        let database = Database::new(&archive, None, Timestamp(0));
        for (sql, says) in [
            ("SELEC 1", "SELEC"),
            ("SELECT * FROM events WHERE", "found: EOF"),
            ("SELECT custmer FROM events", "customer"),
            (
                "SELECT * FROM event",
                "the tables are events, customers, accounts, flags, dead_letters",
            ),
            ("SELECT nonsense(1)", "nonsense"),
            ("SELECT count(*) FROM events WHERE amount > 'x'", ""),
            ("SELECT 'x' + 1", ""),
            ("SELECT 1 / 0", "zero"),
            ("SELECT CAST('x' AS INT)", "x"),
        ] {
            let error = database.query(sql, &Limits::default()).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(says), "{sql}: {text}");
            for internal in [
                "DataFusion",
                "vigie.public",
                "Error during planning",
                "backtrace",
                "ParserError",
            ] {
                assert!(!text.contains(internal), "{sql}: {text}");
            }
            println!("{sql}: {text}");
        }
    });
}

#[test]
fn a_filter_keeps_what_the_same_condition_selects() {
    run(async {
        let Shop { archive, rows, .. } = shop().await;
        let database = Database::new(&archive, None, Timestamp(NOON));
        for condition in [
            "true",
            "signal = 'purchase' AND amount > 100",
            "workspace = 'shop' AND customer LIKE 'c%' AND day = '2026-11-21'",
            "decision <> 'applied'",
            "payload LIKE '%secret%7%'",
            "recorded_at < now() + INTERVAL '1 day'",
            "currency",
        ] {
            let filter = match Filter::parse(condition, Timestamp(NOON)) {
                Ok(filter) => filter,
                Err(error) => {
                    assert_eq!(condition, "currency", "{error}");
                    continue;
                }
            };
            let limits = Limits {
                rows: 1_000_000,
                ..Limits::default()
            };
            let sql = format!("SELECT log_offset FROM events WHERE {condition} ORDER BY log_offset");
            let expected = written(&database.query(&sql, &limits).await.unwrap(), Format::Csv);
            let wanted = Wanted {
                filter: Some(filter),
                bytes: true,
                ..Wanted::default()
            };
            let kept = crate::support::drain(archive.read(wanted)).await;
            let mut got = "log_offset\n".to_owned();
            for row in &kept {
                let offset = row.position.offset.0;
                got += &format!("{offset}\n");
                assert_eq!(row.bytes.as_ref(), Some(&rows[offset as usize].bytes));
                let Ok(Record {
                    body: Body::Event(event),
                    ..
                }) = &row.record
                else {
                    panic!()
                };
                assert_eq!(&*event.payload, "", "payloads were not asked for");
            }
            assert_eq!(got, expected, "{condition}");
            assert!(!kept.is_empty(), "{condition}");
        }
        let deep = format!("false{}", " OR log_offset = 1".repeat(240));
        let _ = Filter::parse(&deep, Timestamp(0)).unwrap();
        let failing = Filter::parse("1 / (log_offset - log_offset) > 0", Timestamp(0)).unwrap();
        let wanted = Wanted {
            filter: Some(failing),
            ..Wanted::default()
        };
        let failed = archive.read(wanted).next().await;
        assert!(matches!(failed, Err(ArchiveError::Query { .. })), "{failed:?}");
        for wrong in [
            "signal =",
            "nosuch = 1",
            "true; DROP TABLE events",
            "count(*) > 1",
            "signal IN (SELECT 'x')",
            "1 + 1",
        ] {
            let refused = Filter::parse(wrong, Timestamp(0));
            assert!(matches!(refused, Err(ArchiveError::Sql { .. })), "{wrong}: {refused:?}");
        }
    });
}
