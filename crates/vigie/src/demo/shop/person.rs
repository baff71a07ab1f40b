//! One person of the simulated shop: traits drawn once, then days lived one after the other.
//!
//! A person's acts are Poisson processes whose rates are the person's own, multiplied by what the fate leaves of them on
//! that day ([`Fate::zeal`]). Rates differ between people as gamma variates do, which is what the repeat-buying models
//! assume; the fates are what they do not know.

use super::acts::{Act, Outbox};
use super::{Fate, Profile, Settings};
use crate::demo::dice::Dice;
use serde_json::json;
use vigie_event::{Channel, DAY_MS, Day, Signal, Timestamp};

const BROWSERS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
];
/// What loads a mail's images when Apple's privacy proxy does it, soon after delivery, whether or not anybody reads it.
const MAIL_PROXY: &str = "Mozilla/5.0";
const CALL_REASONS: [&str; 4] = ["delivery", "product", "invoice", "return"];
const WORDS: [&str; 6] = ["lamp", "chair", "desk", "shelf", "rug", "vase"];

/// Share of the customers who are met during the first weeks; the others arrive evenly until `now`.
const THERE_FROM_START: f64 = 0.6;
const FIRST_WEEKS_DAYS: f64 = 35.0;
/// Tuesday, counted from Monday.
const CAMPAIGN_WEEKDAY: i32 = 1;
const CAMPAIGN_HOUR_MS: i64 = 8 * 3_600_000;
/// A factor below which nothing is left of a person's habits.
const NOTHING: f64 = 0.02;
const MINUTE_MS: i64 = 60_000;

/// New people a day once `now` has passed.
pub(super) fn arrivals_per_day(settings: &Settings) -> f64 {
    f64::from(settings.customers) * (1.0 - THERE_FROM_START) / f64::from(span_days(settings))
}

fn span_days(settings: &Settings) -> i32 {
    settings.now.day().days_since(settings.start.day()).max(1)
}

impl Fate {
    /// What is left of a person's usual rates on a day.
    pub(super) fn zeal(self, day: Day, since: Day) -> f64 {
        match self {
            Self::Loyal | Self::PasserBy => 1.0,
            Self::Fading { from, half_life_days } if day >= from => {
                let left = 0.5f64.powf(f64::from(day.days_since(from)) / f64::from(half_life_days.max(1)));
                if left < NOTHING { 0.0 } else { left }
            }
            Self::Leaver { on } if day >= on => 0.0,
            Self::Seasonal { phase } if (day.0 + phase).rem_euclid(120) >= 40 => 0.08,
            Self::Seasonal { .. } => 2.2,
            Self::Complainer { on, resolved } if day > on => match (resolved, day.days_since(on)) {
                (true, _) => 0.9,
                (false, ..=20) => 0.15,
                (false, _) => 0.0,
            },
            Self::OneTime => match day.days_since(since) {
                ..=0 => 1.0,
                1..=14 => 0.1,
                _ => 0.0,
            },
            Self::Fading { .. } | Self::Leaver { .. } | Self::Complainer { .. } => 1.0,
        }
    }
}

/// What a person is like.
struct Traits {
    /// Purchases a day.
    purchase_rate: f64,
    /// Visits without a purchase a day.
    visit_rate: f64,
    call_rate: f64,
    ticket_rate: f64,
    /// Share of purchases made at the till.
    in_store: f64,
    /// Chance of reading a mail, while the zeal is whole.
    reads_mail: f64,
    /// A mail every so many weeks; 0 for none.
    mail_every_weeks: i32,
    /// The mail client loads images through a proxy.
    mail_proxy: bool,
    /// Hour of the day around which most things happen.
    usual_hour: f64,
    /// Average basket in cents.
    basket_cents: f64,
    browser: &'static str,
    /// Day on which profiling is refused.
    refuses_on: Option<Day>,
}

/// One person.
pub(super) struct Person {
    profile: Profile,
    traits: Traits,
    dice: Dice,
    /// Prefix of event ids: no two shops and no two people share one.
    tag: String,
    acts: u32,
    orders: u32,
    /// Visits before the person gives a name; 0 = named.
    anonymous_visits_left: i64,
    subscribed: bool,
    complained: bool,
}

impl Person {
    /// Draws the person with the given number, who arrives on the given day or some day up to `now`.
    pub(super) fn new(settings: &Settings, index: u32, on: Option<Day>) -> Self {
        let mut dice = Dice::new(settings.seed, u64::from(index));
        let start = settings.start.day();
        let span = f64::from(span_days(settings));
        let from_start = dice.chance(THERE_FROM_START);
        let after = if from_start {
            dice.between(0.0, FIRST_WEEKS_DAYS.min(span))
        } else {
            dice.between(0.0, span)
        };
        let since = on.unwrap_or(Day(start.0 + after as i32));
        let fate = draw_fate(&mut dice, since);
        let user_id = (fate != Fate::PasserBy).then(|| format!("C{index:06}"));
        // Those who come later begin by looking around under a browser's id.
        let anonymous_visits_left = match fate {
            Fate::PasserBy => i64::MAX,
            _ if !from_start && dice.chance(0.6) => dice.whole(1, 4),
            _ => 0,
        };
        let traits = draw_traits(&mut dice, fate, since);
        Self {
            profile: Profile {
                user_id,
                anonymous_id: format!("{:016x}", dice.bits()),
                since,
                fate,
            },
            tag: format!("{:x}-{}-{index}", settings.seed, start.0),
            subscribed: traits.mail_every_weeks > 0,
            traits,
            dice,
            acts: 0,
            orders: 0,
            anonymous_visits_left,
            complained: false,
        }
    }

    #[cfg(test)]
    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Lives one day.
    pub(super) fn live(&mut self, day: Day, outbox: &mut Outbox) {
        let since = self.profile.since;
        if day < since {
            return;
        }
        let zeal = self.profile.fate.zeal(day, since);
        let visits = self.dice.poisson(self.traits.visit_rate * zeal) + u32::from(day == since);
        for _ in 0..visits {
            let at = self.some_time(day);
            self.visit(at, outbox);
        }
        if self.anonymous_visits_left > 0 {
            return;
        }
        self.shop(day, zeal, outbox);
        self.talk(day, zeal, outbox);
        self.complain(day, outbox);
        self.receive_mail(day, zeal, outbox);
        if self.traits.refuses_on == Some(day) {
            let at = self.some_time(day);
            let mut act = self.act(Signal::Custom, at);
            act.name = Some("Privacy Settings Saved");
            act.consent = Some(json!({ "profiling": "refused" }));
            self.send(act.over(Channel::Web), outbox);
        }
    }

    /// Looks around; at some point gives a name.
    fn visit(&mut self, mut at: Timestamp, outbox: &mut Outbox) {
        self.page(Signal::PageView, "/".to_owned(), at, outbox);
        if self.anonymous_visits_left > 0 {
            self.anonymous_visits_left -= 1;
            if self.anonymous_visits_left == 0 {
                at = at.plus_ms(self.dice.whole(20_000, 2 * MINUTE_MS));
                self.sign_up(at, outbox);
            }
        } else if self.dice.chance(0.25) {
            at = at.plus_ms(self.dice.whole(2_000, 20_000));
            let act = self.web_act(Signal::AccountLogin, "/login".to_owned(), at);
            self.send(act, outbox);
        }
        if self.dice.chance(0.2) {
            at = at.plus_ms(self.dice.whole(3_000, 40_000));
            let word = self.dice.pick(&WORDS);
            let act = self
                .web_act(Signal::Search, format!("/search?q={word}"), at)
                .with(json!({ "query": word }));
            self.send(act, outbox);
        }
        for _ in 0..self.dice.whole(0, 3) {
            at = at.plus_ms(self.dice.whole(5_000, 2 * MINUTE_MS));
            let product = self.dice.whole(1, 400);
            self.page(Signal::ProductView, format!("/p/{product}"), at, outbox);
        }
        if self.dice.chance(0.08) {
            at = at.plus_ms(self.dice.whole(5_000, MINUTE_MS));
            let signal = self
                .dice
                .pick(&[Signal::CartAdd, Signal::FavouriteAdd, Signal::DocumentRequest]);
            self.page(signal, "/p".to_owned(), at, outbox);
        }
    }

    /// The browser's id becomes a customer's.
    fn sign_up(&mut self, at: Timestamp, outbox: &mut Outbox) {
        let mut create = self.web_act(Signal::AccountCreate, "/account/new".to_owned(), at);
        create.consent =
            Some(json!({ "profiling": "granted", "marketing": "granted", "email_open_tracking": "granted" }));
        self.send(create, outbox);
        let identify = self.web_act(Signal::Identify, "/account/new".to_owned(), at.plus_ms(40));
        self.send(identify, outbox);
    }

    /// Buys, perhaps, on the web or at the till; sometimes sends it back.
    fn shop(&mut self, day: Day, zeal: f64, outbox: &mut Outbox) {
        let first_day = day == self.profile.since;
        let purchases = match self.profile.fate {
            Fate::OneTime => u32::from(self.orders == 0),
            _ => self.dice.poisson(self.traits.purchase_rate * zeal) + u32::from(first_day),
        };
        for _ in 0..purchases {
            let mut at = self.some_time(day);
            let spread = (0.45 * self.dice.normal()).exp();
            let cents = (self.traits.basket_cents * spread).round() as i64;
            self.orders += 1;
            let order = format!("{}-{}", self.profile.user_id.as_deref().unwrap_or("X"), self.orders);
            if self.dice.chance(self.traits.in_store) {
                let act = self.act(Signal::Purchase, at).over(Channel::Store);
                let shop = self.dice.pick(&["Lyon", "Nantes", "Lille"]);
                self.send(act.paid(cents, order.clone()).with(json!({ "shop": shop })), outbox);
            } else {
                for (signal, path) in [
                    (Signal::ProductView, "/p/basket"),
                    (Signal::CartAdd, "/cart"),
                    (Signal::CheckoutStep, "/checkout"),
                ] {
                    self.page(signal, path.to_owned(), at, outbox);
                    at = at.plus_ms(self.dice.whole(10_000, 3 * MINUTE_MS));
                }
                let act = self.web_act(Signal::Purchase, "/checkout/done".to_owned(), at);
                self.send(act.paid(cents, order.clone()), outbox);
            }
            if self.dice.chance(0.03) {
                let later = at.plus_ms(self.dice.whole(3 * DAY_MS, 12 * DAY_MS));
                let act = self.act(Signal::Refund, later).paid(cents, order);
                self.send(act, outbox);
            }
            if self.dice.chance(0.08) {
                let score = (7.5 + 2.0 * self.dice.normal()).clamp(0.0, 10.0).round() as i64;
                let later = at.plus_ms(self.dice.whole(DAY_MS, 4 * DAY_MS));
                let act = self
                    .web_act(Signal::SurveyNps, "/survey".to_owned(), later)
                    .with(json!({ "score": score }));
                self.send(act, outbox);
            }
        }
    }

    /// Calls, or opens a ticket that support answers.
    fn talk(&mut self, day: Day, zeal: f64, outbox: &mut Outbox) {
        if self.dice.chance(self.traits.call_rate * zeal) {
            let at = self.office_time(day);
            let signal = if self.dice.chance(0.1) {
                Signal::CallAbandoned
            } else {
                Signal::CallInbound
            };
            let (reason, seconds) = (self.dice.pick(&CALL_REASONS), self.dice.whole(40, 900));
            let act = self
                .act(signal, at)
                .with(json!({ "reason": reason, "duration_seconds": seconds }));
            self.send(act, outbox);
        }
        if self.dice.chance(self.traits.ticket_rate * zeal) {
            let mut at = self.some_time(day);
            let ticket = format!("T-{}-{}", self.tag, self.acts);
            for signal in [Signal::TicketOpened, Signal::TicketReplied, Signal::TicketClosed] {
                let act = self.act(signal, at).with(json!({ "ticket": ticket }));
                self.send(act, outbox);
                at = at.plus_ms(self.dice.whole(3_600_000, DAY_MS));
            }
        }
    }

    /// The complaint of a complainer, and what the shop makes of it.
    fn complain(&mut self, day: Day, outbox: &mut Outbox) {
        let Fate::Complainer { on, resolved } = self.profile.fate else {
            return;
        };
        if self.complained || day < on {
            return;
        }
        self.complained = true;
        let case = format!("K-{}", self.tag);
        let severity = self.dice.pick(&["minor", "major", "grave"]);
        let mut at = self.office_time(day);
        let mut phases = vec![Signal::ComplaintOpened, Signal::ComplaintAcknowledged];
        if resolved {
            phases.extend([
                Signal::ComplaintResolved,
                Signal::ComplaintClosed,
                Signal::ComplaintResatisfied,
            ]);
        }
        for signal in phases {
            let act = self.act(signal, at).with(json!({ "case": case, "severity": severity }));
            self.send(act, outbox);
            at = at.plus_ms(self.dice.whole(6 * 3_600_000, 3 * DAY_MS));
        }
    }

    /// The weekly campaign: sent, perhaps opened (by a person or a machine), perhaps followed, sometimes the last one.
    fn receive_mail(&mut self, day: Day, zeal: f64, outbox: &mut Outbox) {
        let (weekday, week) = ((day.0 + 3).rem_euclid(7), (day.0 + 3).div_euclid(7));
        let every = self.traits.mail_every_weeks;
        if !self.subscribed || weekday != CAMPAIGN_WEEKDAY || week.rem_euclid(every.max(1)) != 0 {
            return;
        }
        let campaign = json!({ "campaign": format!("week-{week}") });
        let sent = day
            .start()
            .plus_ms(CAMPAIGN_HOUR_MS + self.dice.whole(0, 20 * MINUTE_MS));
        let act = self.act(Signal::EmailSent, sent).with(campaign.clone());
        self.send(act, outbox);
        if self.traits.mail_proxy {
            let at = sent.plus_ms(self.dice.whole(1_000, 5 * MINUTE_MS));
            let act = self
                .act(Signal::EmailOpen, at)
                .seen_on(MAIL_PROXY, None)
                .with(campaign.clone());
            self.send(act, outbox);
        }
        if !self.dice.chance(self.traits.reads_mail * zeal.min(1.0)) {
            if zeal < 0.5 && self.dice.chance(0.015) {
                self.subscribed = false;
                let act = self.act(Signal::EmailUnsubscribe, sent.plus_ms(6 * 3_600_000));
                self.send(act, outbox);
            }
            return;
        }
        let opened = sent.plus_ms((self.dice.gamma(0.7) * 5.0 * 3_600_000.0) as i64 + MINUTE_MS);
        if !self.traits.mail_proxy {
            let act = self
                .act(Signal::EmailOpen, opened)
                .seen_on(self.traits.browser, None)
                .with(campaign.clone());
            self.send(act, outbox);
        }
        if self.dice.chance(0.25) {
            let clicked = opened.plus_ms(self.dice.whole(5_000, 2 * MINUTE_MS));
            let act = self
                .act(Signal::EmailClick, clicked)
                .seen_on(self.traits.browser, None)
                .with(campaign);
            self.send(act, outbox);
            self.visit(clicked.plus_ms(2_000), outbox);
        }
    }

    fn page(&mut self, signal: Signal, path: String, at: Timestamp, outbox: &mut Outbox) {
        let act = self.web_act(signal, path, at);
        self.send(act, outbox);
    }

    /// An act in the browser, which knows its own id.
    fn web_act(&mut self, signal: Signal, path: String, at: Timestamp) -> Act {
        let mut act = self.act(signal, at);
        act.anonymous_id = Some(self.profile.anonymous_id.clone());
        act.seen_on(self.traits.browser, Some(format!("https://shop.example{path}")))
    }

    /// An act of the person under the name that the shop knows, if it knows one.
    fn act(&mut self, signal: Signal, at: Timestamp) -> Act {
        self.acts += 1;
        let mut act = Act::new(format!("{}-{}", self.tag, self.acts), signal, at);
        match self.anonymous_visits_left {
            0 => act.user_id.clone_from(&self.profile.user_id),
            _ => act.anonymous_id = Some(self.profile.anonymous_id.clone()),
        }
        act
    }

    fn send(&mut self, act: Act, outbox: &mut Outbox) {
        outbox.send(&act, &mut self.dice);
    }

    /// A time of the day as this person keeps it.
    fn some_time(&mut self, day: Day) -> Timestamp {
        let hour = (self.traits.usual_hour + 2.5 * self.dice.normal()).rem_euclid(24.0);
        day.start().plus_ms((hour * 3_600_000.0) as i64)
    }

    /// A time at which the phone is answered.
    fn office_time(&mut self, day: Day) -> Timestamp {
        day.start().plus_ms(self.dice.whole(8 * 3_600_000, 18 * 3_600_000))
    }
}

fn draw_fate(dice: &mut Dice, since: Day) -> Fate {
    let mut later = |low: i64, high: i64| Day(since.0 + dice.whole(low, high) as i32);
    let (soon, far) = (later(20, 200), later(20, 320));
    match dice.unit() {
        u if u < 0.36 => Fate::Loyal,
        u if u < 0.54 => Fate::Fading {
            from: soon,
            half_life_days: dice.whole(12, 45) as i32,
        },
        u if u < 0.66 => Fate::Leaver { on: far },
        u if u < 0.73 => Fate::Seasonal {
            phase: dice.whole(0, 119) as i32,
        },
        u if u < 0.79 => Fate::Complainer {
            on: soon,
            resolved: dice.chance(0.5),
        },
        u if u < 0.92 => Fate::OneTime,
        _ => Fate::PasserBy,
    }
}

fn draw_traits(dice: &mut Dice, fate: Fate, since: Day) -> Traits {
    let known = fate != Fate::PasserBy;
    let mail_every_weeks = match known && dice.chance(0.65) {
        true => dice.pick(&[1, 1, 2, 4]),
        false => 0,
    };
    Traits {
        purchase_rate: if known { dice.gamma(1.3) / 28.0 } else { 0.0 },
        visit_rate: if known {
            dice.gamma(1.5) / 8.0
        } else {
            dice.gamma(1.0) / 40.0
        },
        call_rate: if known { dice.gamma(0.5) / 150.0 } else { 0.0 },
        ticket_rate: if known { dice.gamma(0.5) / 300.0 } else { 0.0 },
        in_store: if dice.chance(0.3) { dice.between(0.3, 0.95) } else { 0.0 },
        reads_mail: dice.between(0.05, 0.7),
        mail_every_weeks,
        mail_proxy: dice.chance(0.25),
        usual_hour: dice.pick(&[7.5, 12.5, 18.5, 20.5]),
        basket_cents: 4_500.0 * (0.6 * dice.normal()).exp(),
        browser: dice.pick(&BROWSERS),
        refuses_on: (known && dice.chance(0.015)).then(|| Day(since.0 + dice.whole(5, 200) as i32)),
    }
}
