//! A question that is bound to a workspace cannot reach another one's rows, whatever its SQL says (WS-1), and no question
//! can do anything but ask.

use crate::questions::{Shop, shop};
use crate::support::{run, workspace};
use std::sync::Arc;
use vigie_archive::ArchiveError;
use vigie_archive::sql::{Database, Format, Limits};

/// What the other workspace's rows, and only they, contain.
const SECRET: &str = "RIVAL";

const HOSTILE: &[&str] = &[
    "SELECT * FROM events",
    "SELECT * FROM events WHERE workspace = 'rival'",
    "SELECT * FROM events WHERE 1 = 1 OR workspace = 'rival'",
    "SELECT * FROM events UNION ALL SELECT * FROM events WHERE workspace <> 'shop'",
    "SELECT * FROM events e WHERE NOT (e.workspace = 'shop')",
    "SELECT DISTINCT workspace FROM events",
    "SELECT max(payload), min(payload), max(event_id), max(name), max(customer) FROM events",
    "SELECT array_agg(payload) FROM events",
    "SELECT * FROM customers WHERE true OR workspace = 'rival'",
    "SELECT * FROM flags",
    "SELECT * FROM dead_letters",
    "SELECT c.* FROM customers c FULL OUTER JOIN events e ON c.customer = e.customer",
    "SELECT (SELECT max(payload) FROM events WHERE workspace = 'rival')",
    "WITH events AS (SELECT * FROM vigie.public.events) SELECT * FROM events",
    "SELECT * FROM vigie.public.events",
    "SELECT * FROM vigie.information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM archive.files",
    "SELECT * FROM 'workspace=rival/day=2026-11-20/x.parquet'",
    "SELECT * FROM \"archive://files/workspace=rival/\"",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM parquet_metadata('workspace=rival')",
    "SELECT * FROM read_parquet('**/*.parquet')",
    "SELECT record FROM events",
    "SELECT judgement FROM events",
    "SELECT whole FROM events",
    "EXPLAIN SELECT * FROM events",
    "EXPLAIN ANALYZE SELECT * FROM events",
    "SHOW TABLES",
    "SHOW ALL",
    "DESCRIBE events",
    "SET datafusion.catalog.information_schema = true",
    "RESET datafusion.catalog.information_schema",
    "CREATE TABLE t AS SELECT * FROM events",
    "CREATE VIEW events AS SELECT 1",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'archive://files/workspace=rival/'",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "COPY events TO '/tmp/stolen.csv'",
    "COPY (SELECT * FROM events) TO 'archive://files/x.parquet'",
    "INSERT INTO events SELECT * FROM events",
    "UPDATE events SET workspace = 'shop'",
    "DELETE FROM events",
    "TRUNCATE TABLE events",
    "DROP TABLE events",
    "DROP VIEW events",
    "SELECT * INTO stolen FROM events",
    "WITH x AS (INSERT INTO events SELECT * FROM events) SELECT * FROM x",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "SELECT 1; SELECT * FROM events",
    "SELECT 1; DROP TABLE events",
    "",
    ";",
];

#[test]
fn another_workspace_cannot_be_reached() {
    run(async {
        let Shop {
            archive, tail, live, ..
        } = shop().await;
        let limits = Limits::default();
        let bound = Database::new(&archive, Some(workspace("shop")), vigie_event::Timestamp(0))
            .with_live(Arc::clone(&live) as _)
            .with_tail(&tail)
            .unwrap();
        let free = Database::new(&archive, None, vigie_event::Timestamp(0))
            .with_live(live)
            .with_tail(&tail)
            .unwrap();
        // The secret is there to be found.
        let mut seen = Vec::new();
        let everything = free.query("SELECT * FROM events", &limits).await.unwrap();
        everything.write(Format::JsonLines, &mut seen).unwrap();
        assert!(String::from_utf8_lossy(&seen).contains(SECRET));

        let mut answered = 0;
        for sql in HOSTILE {
            match bound.query(sql, &limits).await {
                Ok(answer) => {
                    answered += 1;
                    for format in [Format::Table, Format::JsonLines] {
                        let mut text = Vec::new();
                        answer.write(format, &mut text).unwrap();
                        let text = String::from_utf8_lossy(&text).to_uppercase();
                        assert!(
                            !text.contains(SECRET) || sql.to_uppercase().contains(SECRET) && answer.rows() == 0,
                            "{sql}: {text}"
                        );
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    let about_the_text = matches!(error, ArchiveError::Sql { .. } | ArchiveError::NotAQuery { .. });
                    assert!(about_the_text, "{sql}: {error:?}");
                    assert!(!text.contains("RIVAL-"), "{sql}: {text}");
                }
            }
        }
        assert!(
            (10..20).contains(&answered),
            "{answered} of {} were questions",
            HOSTILE.len()
        );
        let workspaces = bound
            .query("SELECT DISTINCT workspace FROM events", &limits)
            .await
            .unwrap();
        let mut text = Vec::new();
        workspaces.write(Format::Csv, &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "workspace\nshop\n");
    });
}

#[test]
fn commands_are_refused_by_name() {
    run(async {
        let Shop { archive, .. } = shop().await;
        let database = Database::new(&archive, None, vigie_event::Timestamp(0));
        for (sql, says) in [
            ("DROP TABLE events", "DROP is a command"),
            ("COPY events TO 'x'", "COPY is a command"),
            ("SET a = 1", "SET is a command"),
            ("EXPLAIN SELECT 1", "EXPLAIN is a command"),
            ("SELECT 1; SELECT 2", "several statements"),
            ("", "empty"),
        ] {
            let error = database.query(sql, &Limits::default()).await.unwrap_err();
            assert!(error.to_string().contains(says), "{sql}: {error}");
        }
    });
}
