//! Random installations: what arrives, when it is folded, when time passes, when the process dies. A workload is a list of
//! steps that stand by themselves, so that a failing one can be shortened by leaving steps out.

use crate::dice::Dice;
use crate::support::House;
use vigie_event::{
    Body, Channel, Client, ConsentContext, ConsentState, Control, Currency, DAY_MS, Event, EventId, Money, Partition,
    PersonId, PersonIds, Purpose, Record, Signal, Source, Tick, Timestamp, Workspace, fingerprint, partition_for,
};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::Store;

pub const BASE: i64 = 1_770_000_000_000;
const HOUR_MS: i64 = 3_600_000;
const CURRENCIES: [&str; 10] = ["EUR", "USD", "GBP", "JPY", "CHF", "AUD", "CAD", "BRL", "ZAR", "AED"];
const DECLARATIONS: [Signal; 5] = [
    Signal::Identify,
    Signal::Identify,
    Signal::Identify,
    Signal::Alias,
    Signal::Unlink,
];
const MAILS: [Signal; 8] = [
    Signal::EmailOpen,
    Signal::EmailOpen,
    Signal::EmailClick,
    Signal::EmailClick,
    Signal::EmailClick,
    Signal::EmailDelivered,
    Signal::EmailMachineClick,
    Signal::EmailUnsubscribe,
];
const LINKS: [&str; 4] = [
    "https://shop.example/a",
    "https://shop.example/b",
    "https://shop.example/c",
    "https://shop.example/d",
];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0",
    "",
];
const NAMES: [&str; 4] = ["Order Completed", "page viewed", "Something Else", "Refunded Order"];

#[derive(Debug, Clone)]
pub enum Step {
    /// A record reaches a partition.
    Record(Partition, Box<Record>),
    /// Everything is folded, in batches of so many records.
    Settle(usize),
    /// Time passes with ticks, as the live driver writes them.
    Pass(Timestamp),
    /// The process dies and starts again.
    Crash,
    /// What is committed becomes safe.
    Persist,
    /// The power fails: what was committed since the last `Persist` is gone from the store, not from the log.
    PowerLoss,
}

pub struct Workload {
    pub partitions: u16,
    pub steps: Vec<Step>,
}

impl Workload {
    pub fn random(seed: u64, events: usize) -> Self {
        let mut dice = Dice(seed);
        let partitions = dice.pick(&[1, 2, 3, 4, 5]);
        let mut maker = Maker {
            people: 1 + dice.below(6),
            workspaces: 1 + dice.below(3),
            linking: dice.pick(&[0, 5, 25]),
            leaps: dice.pick(&[0, 1, 6]),
            now: BASE,
            made: Vec::new(),
            dice,
        };
        let steps = maker.steps(partitions, events);
        Self { partitions, steps }
    }

    /// Runs all steps and folds what is left.
    pub async fn play(&self) -> House {
        let mut house = House::open(self.partitions, Timestamp(BASE)).await;
        for step in &self.steps {
            match step {
                Step::Record(partition, record) => house.append(*partition, record).await,
                Step::Settle(batch) => house.sim.settle(*batch).await.unwrap(),
                Step::Pass(until) => {
                    house.sim.settle(usize::MAX).await.unwrap();
                    house.sim.pass_to(*until).await.unwrap();
                }
                Step::Crash => house.crash().await,
                Step::Persist => house.store.persist().await.unwrap(),
                Step::PowerLoss => {
                    house.store.power_loss();
                    house.crash().await;
                }
            }
        }
        house.sim.settle(usize::MAX).await.unwrap();
        house
    }
}

struct Maker {
    dice: Dice,
    people: u64,
    workspaces: u64,
    linking: u64,
    leaps: u64,
    now: i64,
    made: Vec<Event>,
}

/// Signals that say something about contacts and complaints.
const CONTACTS: [Signal; 10] = [
    Signal::ContactSent,
    Signal::EmailSent,
    Signal::CallInbound,
    Signal::TicketOpened,
    Signal::TicketClosed,
    Signal::ComplaintOpened,
    Signal::ComplaintGrave,
    Signal::ComplaintResolved,
    Signal::ComplaintResatisfied,
    Signal::EmailUnsubscribe,
];

/// A policy of any kind.
fn policy(dice: &mut Dice, index: u64) -> String {
    if dice.percent(20) {
        let score = dice.pick(&["complaint-age", "closure-age"]);
        let days = dice.pick(&[0.5, 3.0, 20.0]);
        let window = dice.pick(&[1, 60]);
        return format!(
            "[[policy]]\nid = \"p{index}\"\nscore = \"{score}\"\nthreshold = {days}\nwindow-days = {window}\n"
        );
    }
    let score = dice.pick(&["attrition", "attrition", "churn-30", "churn-90", "churn-7"]);
    let threshold = dice.pick(&[0.2, 0.4, 0.5, 0.65, 0.9]);
    let mut text = format!(
        "[[policy]]\nid = \"p{index}\"\nscore = \"{score}\"\nthreshold = {threshold}\nrearm-below = {}\n\
         cooldown-days = {}\nholdout = {}\n",
        threshold * dice.pick(&[0.3, 0.75, 0.95]),
        dice.pick(&[0, 1, 30, 3650]),
        dice.pick(&[0.0, 0.5]),
    );
    let reward = dice.percent(50);
    for line in [
        "target = \"activity\"\n",
        "within-hours = 5\n",
        if reward {
            "play = \"reward\"\nwindow-days = 90\n"
        } else {
            "window-days = 9\n"
        },
        "where = \"purchases > 1 OR revenue_minor / 100 > active_days\"\n",
        "max-cost = 1.0\n",
    ] {
        if dice.percent(30) {
            text.push_str(line);
        }
    }
    text.push_str(&format!(
        "[policy.eligible]\nmin-purchase-days = {}\nmax-purchase-days = {}\nmin-active-days = {}\n\
         max-silence-days = {}\nknown-only = {}\nmarketing-consent = \"{}\"\n",
        dice.pick(&[0, 0, 1, 2]),
        dice.pick(&[2, 5, 100]),
        dice.pick(&[0, 0, 3]),
        dice.pick(&[3, 30, 365, 100_000]),
        dice.percent(50),
        dice.pick(&["granted", "not-refused", "not-refused"]),
    ));
    for channel in [
        "name = \"email\"\ncost = 0.1",
        "name = \"phone\"\ncost = 3",
        "name = \"app\"",
    ] {
        if dice.percent(25) {
            text.push_str(&format!("[[policy.channel]]\n{channel}\n"));
        }
    }
    if dice.percent(30) {
        text.push_str(
            "[[policy.segment]]\nname = \"s\"\nwhere = \"currency = 'EUR'\"\ncooldown-days = 4\nholdout = 0.2\n",
        );
    }
    text
}

/// A band of any kind.
fn band(dice: &mut Dice, index: u64) -> String {
    let score = dice.pick(&["attrition", "churn-30", "churn-90", "stage", "revenue"]);
    let edges = match score {
        "stage" => "",
        "revenue" => dice.pick(&["edges = [50, 200.5, 1000]\n", "edges = [0.01]\n"]),
        _ => dice.pick(&["", "edges = [0.5]\n", "edges = [0.2, 0.22, 0.6, 0.95]\n"]),
    };
    let hysteresis = dice.pick(&[0.0, 0.05, 0.3]);
    format!("[[band]]\nname = \"b{index}\"\nscore = \"{score}\"\n{edges}hysteresis = {hysteresis}\n")
}

impl Maker {
    fn steps(&mut self, partitions: u16, events: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..events {
            self.now += self.pause();
            match self.dice.below(100) {
                0..=3 => steps.push(Step::Settle(1 + self.dice.index(7))),
                4..=6 => {
                    let until = self.now + self.dice.below(40) as i64 * DAY_MS;
                    steps.push(Step::Pass(Timestamp(until)));
                    self.now = self.now.max(until);
                }
                7 => steps.push(Step::Crash),
                8 => steps.push(Step::Persist),
                9 => steps.push(Step::PowerLoss),
                10..=11 => {
                    let record = Record::new(Body::Control(self.activation()));
                    let all = (0..partitions).map(|p| Step::Record(Partition(p), Box::new(record.clone())));
                    steps.extend(all);
                }
                12 => {
                    let record = Record::new(Body::Tick(Tick {
                        at: Timestamp(self.now),
                    }));
                    let partition = Partition(self.dice.below(u64::from(partitions)) as u16);
                    steps.push(Step::Record(partition, Box::new(record)));
                }
                _ => {
                    let event = self.event();
                    let key = event.person.key().map_or("", PersonId::as_str);
                    let partition = if self.dice.percent(2) {
                        Partition(self.dice.below(u64::from(partitions)) as u16)
                    } else {
                        partition_for(key, partitions)
                    };
                    steps.push(Step::Record(
                        partition,
                        Box::new(Record::new(Body::Event(Box::new(event)))),
                    ));
                }
            }
        }
        steps
    }

    fn pause(&mut self) -> i64 {
        match self.dice.below(100) {
            0..=29 => self.dice.below(3) as i64,
            30..=49 => self.dice.below(120) as i64 * 1000,
            50..=64 => self.dice.below(90) as i64 * 60_000,
            65..=89 => self.dice.below(12 * 24) as i64 * HOUR_MS / 2,
            _ if self.dice.percent(self.leaps) => self.dice.below(14 * 365) as i64 * DAY_MS,
            _ => self.dice.below(80) as i64 * DAY_MS + self.dice.below(DAY_MS as u64) as i64,
        }
    }

    fn activation(&mut self) -> Control {
        let mut model = Model::shipped_text().to_owned();
        for (from, to) in [
            ("offset = 0.0", "offset = 0.8"),
            ("offset = 0.0", "offset = -1.5"),
            ("purchase-weight = 1.0", "purchase-weight = 0.0"),
            ("engagement-weight = 1.0", "engagement-weight = 0.0"),
            ("engagement-weight = 1.0", "engagement-weight = 7.5"),
            ("drift = 0.01", "drift = 0.3"),
            ("drift = 0.01", "drift = 0.003"),
            ("default-horizon-days = 90", "default-horizon-days = 30"),
        ] {
            if self.dice.percent(25) && !(to == "engagement-weight = 0.0" && model.contains("purchase-weight = 0.0")) {
                model = model.replace(from, to);
            }
        }
        if self.dice.percent(20) {
            return Control::Activate {
                at: Timestamp(self.now),
                model: model.into(),
                policies: PolicySet::shipped_text().into(),
            };
        }
        let dice = &mut self.dice;
        let mut policies = String::new();
        for section in [
            "[calendar]\ntime-zone = \"Asia/Kolkata\"\nquiet-hours = \"14:00-12:00\"\nquiet-days = [\"sunday\", \"monday\"]\n",
            "[consent]\nprofiling = \"granted\"\n",
            "[consent]\nopens = \"not-refused\"\n[consent.workspaces.shop-1]\nprofiling = \"granted\"\n",
            "[money]\ncurrency = \"EUR\"\nmargin = 0.5\nacquisition-cost = 30\n",
            "[pressure]\nmax-contacts = 2\nwindow-days = 40\ngap-days = 1\nsuspend-days = 9\nreward-gap-days = 200\n[pressure.channels]\nemail = 1\n",
        ] {
            let again = section.starts_with("[consent]") && policies.contains("[consent]");
            if dice.percent(40) && !again {
                policies.push_str(section);
            }
        }
        for index in 0..dice.below(4) {
            policies.push_str(&policy(dice, index));
        }
        for index in 0..dice.below(3) {
            policies.push_str(&band(dice, index));
        }
        Control::Activate {
            at: Timestamp(self.now),
            model: model.into(),
            policies: policies.into(),
        }
    }

    fn event(&mut self) -> Event {
        let received_at = Timestamp(
            self.now
                - if self.dice.percent(5) {
                    self.dice.below(90_000) as i64
                } else {
                    0
                },
        );
        // A retry: the same event once more.
        if !self.made.is_empty() && self.dice.percent(10) {
            let again = self.dice.index(self.made.len());
            let mut event = self.made[again].clone();
            event.received_at = received_at;
            // The same id for other content.
            if self.dice.percent(25) {
                event.fingerprint = self.dice.roll();
                event.signal = self.signal();
            }
            return event;
        }
        let signal = self.signal();
        let dice = &mut self.dice;
        let at = |dice: &mut Dice| match dice.below(10) {
            0..=4 => None,
            5..=6 => Some(received_at.plus_ms(-(dice.below(3_000_000) as i64))),
            7 => Some(received_at.plus_ms(dice.below(3 * DAY_MS as u64) as i64)),
            8 => Some(received_at.plus_ms(-(dice.below(6_000) as i64 * DAY_MS))),
            _ => Some(received_at.plus_ms(-(dice.below(30 * DAY_MS as u64) as i64))),
        };
        let occurred_at = at(dice);
        let sent_at = match dice.below(6) {
            0..=2 => None,
            3 => at(dice),
            _ => occurred_at.map(|at| at.plus_ms(dice.below(200_000) as i64)),
        };
        let moving = matches!(signal, Signal::Purchase | Signal::Refund) || dice.percent(2);
        let money = (moving && dice.percent(85)).then(|| Money {
            minor: match dice.below(20) {
                0 => -(dice.below(5000) as i64),
                1 => 1_000_000_000_000_000,
                _ => dice.below(20_000) as i64,
            },
            currency: Currency::parse(CURRENCIES[if dice.percent(80) { 0 } else { dice.index(10) }]).unwrap(),
        });
        let mut consent = ConsentContext::new();
        if dice.percent(if matches!(signal, Signal::EmailOpen) { 40 } else { 8 }) {
            let purpose = dice.pick(&[Purpose::Profiling, Purpose::Marketing, Purpose::EmailOpenTracking]);
            let word = dice.pick(&[ConsentState::Granted, ConsentState::Granted, ConsentState::Refused]);
            let _ = consent.insert(purpose, word);
        }
        let person = self.person(signal);
        let dice = &mut self.dice;
        let id = EventId::new(&format!("e{}", dice.below(5_000))).unwrap();
        let name = (signal == Signal::Custom).then(|| dice.pick(&NAMES).into());
        let event = Event {
            workspace: Workspace::new(&format!("shop-{}", dice.below(self.workspaces))).unwrap(),
            person,
            signal,
            name,
            channel: if dice.percent(70) {
                signal.default_channel()
            } else {
                dice.pick(Channel::ALL)
            },
            source: dice.pick(&[Source::Canonical, Source::SendGrid]),
            occurred_at,
            sent_at,
            received_at,
            money,
            order: (signal == Signal::Group && dice.percent(90)).then(|| dice.pick(&["acme", "bolt"]).into()),
            consent,
            client: Client {
                user_agent: dice.percent(40).then(|| dice.pick(&AGENTS).into()),
                page_url: dice.percent(70).then(|| dice.pick(&LINKS).into()),
                ..Client::default()
            },
            fingerprint: fingerprint([
                id.as_str().as_bytes(),
                signal.name().as_bytes(),
                &self.now.to_le_bytes(),
            ]),
            id,
            payload: "{}".into(),
        };
        self.made.push(event.clone());
        event
    }

    fn signal(&mut self) -> Signal {
        match self.dice.below(100) {
            share if share < self.linking => self.dice.pick(&DECLARATIONS),
            0..=49 => Signal::PageView,
            50..=69 => Signal::Purchase,
            70..=76 => Signal::Refund,
            77..=82 => self.dice.pick(&MAILS),
            83..=86 => Signal::Custom,
            87..=92 => self.dice.pick(&CONTACTS),
            _ => self.dice.pick(Signal::ALL),
        }
    }

    fn person(&mut self, signal: Signal) -> PersonIds {
        let people = self.people;
        let dice = &mut self.dice;
        let id = |dice: &mut Dice| {
            if dice.percent(1) {
                "guest".to_owned()
            } else {
                format!("p{}", dice.below(people))
            }
        };
        let (user, anonymous, previous) = (id(dice), id(dice), id(dice));
        let both = matches!(signal, Signal::Identify | Signal::Alias) && dice.percent(80);
        let known = dice.percent(60);
        let mut ids = PersonIds {
            user: (both || known).then(|| PersonId::known(&user).unwrap()),
            anonymous: (both || !known).then(|| PersonId::anonymous(&anonymous).unwrap()),
            previous: (signal == Signal::Alias && dice.percent(90)).then(|| previous.into()),
        };
        if dice.percent(1) {
            (ids.user, ids.anonymous) = (None, None);
        }
        ids
    }
}
