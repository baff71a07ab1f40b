//! Arbitrary logs for the tests, from a seed, and the plain model of an archive that they are compared with: a list of
//! rows in order. It shares no code with the archive.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use vigie_archive::{Archive, Archived, Mode, Place, Reader, Row, Wanted};
use vigie_event::{
    Body, Channel, Client, ConsentState, Control, Currency, Event, EventId, Findings, Forward, Judgement, Link, Merge,
    MergePart, Money, Offset, Origin, Partition, PersonId, PersonIds, Position, Purpose, Record, RejectCode,
    SessionVerdict, Signal, Source, Suppression, Tick, TimeVerdict, Timestamp, Workspace,
};

/// 2026-11-20T00:00:00Z.
pub(crate) const START: i64 = 1_795_132_800_000;
pub(crate) const PARTITIONS: u16 = 5;

pub(crate) fn workspace(name: &str) -> Workspace {
    Workspace::new(name).unwrap()
}

/// Names that try to be somebody else's directory.
pub(crate) fn odd_workspaces() -> Vec<Workspace> {
    let long = "é".repeat(100);
    let longer = format!("{}!", "é".repeat(99));
    [
        "shop",
        "Shop",
        "a/b",
        "..",
        ".none",
        "%2Enone",
        "workspace=shop",
        "日本",
        "it's \"q\"",
        &long,
        &longer,
    ]
    .iter()
    .map(|name| workspace(name))
    .collect()
}

/// A source of arbitrary rows that continue each other.
pub(crate) struct Logs {
    pub(crate) rng: ChaCha8Rng,
    pub(crate) workspaces: Vec<Workspace>,
    ends: BTreeMap<Partition, u64>,
    partitions: u16,
    clock: i64,
}

impl Logs {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            workspaces: odd_workspaces(),
            ends: BTreeMap::new(),
            partitions: PARTITIONS,
            clock: START,
        }
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.rng.random_bool(0.5).then(|| value(self))
    }

    fn time(&mut self) -> Timestamp {
        self.clock += self.rng.random_range(0..400_000);
        Timestamp(self.clock)
    }

    fn text(&mut self) -> String {
        let texts = [
            "",
            "x",
            "Order Completed",
            "NULL",
            "'; DROP TABLE events; --",
            "a,b\n\"c\"",
            "ü🦊",
            "\u{1b}[31m",
        ];
        let text = self.pick(&texts);
        format!("{text}{}", self.rng.random_range(0..50))
    }

    fn person(&mut self) -> PersonId {
        let id = format!("p{}", self.rng.random_range(0..40));
        if self.rng.random_bool(0.5) {
            PersonId::known(&id).unwrap()
        } else {
            PersonId::anonymous(&id).unwrap()
        }
    }

    fn payload(&mut self) -> Box<str> {
        match self.rng.random_range(0..12) {
            0 => "".into(),
            1 => "\0\u{1}\u{7f}".into(),
            2 => "x".repeat(70_000).into(),
            3 => "{\"nested\":{\"\\u0000\":[1e999,-0]}}  \n".into(),
            4 => "null".into(),
            _ => format!(
                "{{\"id\":\"{}\",\"n\":{}}}",
                self.text().escape_debug(),
                self.rng.random::<u64>()
            )
            .into(),
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        let at = self.time();
        let currencies = ["EUR", "JPY", "KWD"];
        Event {
            workspace: {
                let all = self.workspaces.clone();
                self.pick(&all)
            },
            id: EventId::new(&format!("e{}", self.rng.random::<u32>())).unwrap(),
            person: PersonIds {
                user: self.maybe(|me| PersonId::known(&format!("u{}", me.rng.random_range(0..30))).unwrap()),
                anonymous: Some(PersonId::anonymous(&format!("a{}", self.rng.random_range(0..30))).unwrap()),
                previous: self.maybe(|me| me.text().into()),
            },
            signal: self.pick(Signal::ALL),
            name: self.maybe(|me| me.text().into()),
            channel: self.pick(Channel::ALL),
            source: self.pick(&[Source::Canonical, Source::Segment, Source::Import, Source::Simulator]),
            occurred_at: self.maybe(|me| Timestamp(me.clock - 7)),
            sent_at: self.maybe(|me| Timestamp(me.rng.random_range(-9_000_000_000_000..9_000_000_000_000))),
            received_at: at,
            money: self.maybe(|me| Money {
                minor: me.rng.random_range(-1_000_000_000_000..1_000_000_000_000),
                currency: Currency::parse(currencies[me.rng.random_range(0..3)]).unwrap(),
            }),
            order: self.maybe(|me| me.text().into()),
            consent: self
                .maybe(|_| BTreeMap::from([(Purpose::Profiling, ConsentState::Refused)]))
                .unwrap_or_default(),
            client: Client {
                user_agent: self.maybe(|me| me.text().into()),
                page_url: self.maybe(|me| me.text().into()),
                referrer: self.maybe(|me| me.text().into()),
            },
            fingerprint: self.rng.random(),
            payload: self.payload(),
        }
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let at = self.time();
        let all = self.workspaces.clone();
        let by = EventId::new("by").unwrap();
        let body = match self.rng.random_range(0..20) {
            0 => Body::Tick(Tick { at }),
            1 => Body::Link(Link {
                workspace: self.pick(&all),
                from: self.person(),
                to: self.person(),
                at,
                by,
            }),
            2 => Body::Merge(Merge {
                workspace: self.pick(&all),
                from: self.person(),
                into: self.person(),
                at,
                by,
                parts: vec![MergePart {
                    state: vec![self.rng.random(); 9],
                }],
            }),
            3 => Body::Control(Control::Activate {
                at,
                model: "m".into(),
                policies: "p".into(),
            }),
            4 => Body::Forward(Forward {
                into: self.person(),
                event: Box::new(self.event()),
            }),
            // No record at all.
            5 => return (0..self.rng.random_range(0..30)).map(|_| self.rng.random()).collect(),
            _ => Body::Event(Box::new(self.event())),
        };
        let origin = self.maybe(|me| Origin {
            position: Position {
                partition: Partition(9),
                offset: Offset(me.rng.random()),
            },
            index: me.rng.random(),
        });
        let mut bytes = Record { origin, body }.encode();
        if self.rng.random_bool(0.05) {
            // The same record as an unusual encoder might write it: a number with a byte more than needed. Or damage.
            let at = self.rng.random_range(1..bytes.len());
            if bytes[at] < 0x80 {
                bytes[at] |= 0x80;
                bytes.insert(at + 1, 0);
            }
        }
        bytes
    }

    pub(crate) fn judgement(&mut self) -> Judgement {
        match self.rng.random_range(0..9) {
            0 => Judgement::Duplicate,
            1 => Judgement::Suppressed(Suppression::Consent),
            2 => Judgement::DeadLetter(RejectCode::Poison),
            3 => Judgement::Forwarded,
            4 => Judgement::Repeated,
            5 => Judgement::Noted,
            _ => Judgement::Applied(Findings {
                at: Timestamp(self.clock - 3),
                time: self.pick(&[TimeVerdict::Client, TimeVerdict::Clamped]),
                signal: self.pick(Signal::ALL),
                channel: self.pick(Channel::ALL),
                human_permille: self.rng.random_range(0..=1000),
                session: self.pick(&[
                    SessionVerdict::Starts,
                    SessionVerdict::None,
                    SessionVerdict::Continues {
                        since: Timestamp(START),
                    },
                ]),
                conflict: self.rng.random(),
            }),
        }
    }

    /// Rows that come next, in no order.
    pub(crate) fn rows(&mut self, count: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        for _ in 0..count {
            let partition = Partition(self.rng.random_range(0..self.partitions));
            let end = self.ends.entry(partition).or_default();
            let offset = Offset(*end);
            *end += 1;
            let row = Row {
                position: Position { partition, offset },
                bytes: Bytes::from(self.bytes()),
                judgement: self.judgement(),
            };
            let at = self.rng.random_range(0..=rows.len());
            rows.insert(at, row);
        }
        rows
    }
}

/// The order that a flush is read in.
pub(crate) fn ordered(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.position);
    rows
}

pub(crate) async fn drain(mut reader: Reader) -> Vec<Archived> {
    let mut rows = Vec::new();
    while let Some(portion) = reader.next().await.unwrap() {
        assert!(!portion.is_empty());
        rows.extend(portion);
    }
    rows
}

/// Everything that an archive gives, as rows again.
pub(crate) async fn everything(archive: &Archive) -> Vec<Row> {
    let wanted = Wanted {
        bytes: true,
        judgement: true,
        ..Wanted::default()
    };
    let read = drain(archive.read(wanted)).await;
    let rows = read.into_iter().map(|row| Row {
        position: row.position,
        bytes: row.bytes.unwrap(),
        judgement: row.judgement.unwrap(),
    });
    rows.collect()
}

pub(crate) async fn open(place: &Place, mode: Mode) -> Archive {
    Archive::open(place.clone(), mode, PARTITIONS).await.unwrap()
}

/// A runtime for one test.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}
