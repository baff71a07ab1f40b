//! Scenarios in `tests/scenarios/*.txt`: events in, scores and decisions out. A line that starts with `> ` is what the line
//! before it gives; `UPDATE_EXPECT=1` writes those lines anew.
//!
//! | command | does | gives |
//! |---|---|---|
//! | `at TIME` | turns the clock; timers fire | flags |
//! | `send JSON` | receives a canonical event now | flags, refusals to read |
//! | `show ID [TIME]` | assesses a customer, as of now or of TIME | scores, stage, evidence, reasons |
//! | `crossing ID THRESHOLD` | solves when attrition will get there in silence | the instant |
//! | `ledger ID` | where each policy stands with a customer, and how often they were contacted | one line each |
//! | `plan` | how the contact of the last flag is to be made | when, how, what for, why |
//! | `books` | the books | one line |
//! | `account ID` | the company that a customer belongs to | one line |
//! | `ask ID` | what each policy would decide now, had it never decided about the customer | one line each |
//! | `stage ID` | stage of the life cycle | one line |
//! | `policies` … `end` | starts afresh with these policies | |
//! | `reload` … `end` | puts these policies in force, by a control record at the present time | flags |

use super::support::{known, run, time, workspace};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use vigie_event::json::{Receipt, read};
use vigie_event::{CustomerKey, PersonId, Timestamp};
use vigie_pipeline::{Sim, put_in_force};
use vigie_relance::{Decision, Flag, LifeStage, Look, PolicySet, Refusal, evaluate};
use vigie_scoring::{Model, ScoreKind, Scorer, assess, first_crossing};
use vigie_store::Store;
use vigie_telemetry::RefusalReason;

struct Stage {
    sim: Sim,
    flags_seen: u64,
    last_flag: Option<Flag>,
}

impl Stage {
    async fn new(policies: &str) -> Self {
        let sim = Sim::start(8, Model::shipped_text(), policies, Timestamp(0))
            .await
            .unwrap();
        Self {
            sim,
            flags_seen: 0,
            last_flag: None,
        }
    }

    /// Other policies, as a reload puts them in force.
    async fn reload(&mut self, policies: &str, out: &mut String) {
        let (log, now) = (self.sim.worker.log().clone(), self.sim.now());
        put_in_force(&*log, Model::shipped_text(), policies, now).await.unwrap();
        self.sim.settle(usize::MAX).await.unwrap();
        self.new_flags(out).await;
    }

    async fn new_flags(&mut self, out: &mut String) {
        for (sequence, body) in self
            .sim
            .worker
            .store()
            .flags(&workspace(), self.flags_seen, 1000)
            .await
            .unwrap()
        {
            self.flags_seen = sequence;
            let flag: Flag = serde_json::from_slice(&body).unwrap();
            let kind = flag.kind.label().replace('_', " ");
            if let Some(moved) = &flag.band {
                writeln!(
                    out,
                    "> {kind}: {} from {} to {} of {} at {}, {} {:.6} at {:.6}",
                    flag.customer,
                    moved.from,
                    moved.to,
                    flag.policy,
                    flag.raised_at,
                    flag.score.kind,
                    flag.score.value,
                    flag.score.threshold
                )
                .unwrap();
                continue;
            }
            writeln!(
                out,
                "> {kind}: {} by {} at {}, {} {:.6}",
                flag.customer, flag.policy, flag.raised_at, flag.score.kind, flag.score.value
            )
            .unwrap();
            self.last_flag = Some(flag);
        }
    }

    fn key(id: &str) -> CustomerKey {
        match id.strip_prefix("anonymous:") {
            Some(id) => CustomerKey::new(workspace(), PersonId::anonymous(id).unwrap()),
            None => known(id),
        }
    }

    async fn command(&mut self, line: &str, out: &mut String) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "at" => {
                self.sim.pass_to(time(rest)).await.unwrap();
                self.new_flags(out).await;
            }
            "send" => {
                let receipt = Receipt {
                    workspace: workspace(),
                    received_at: self.sim.now(),
                    sent_at: None,
                    user_agent: None,
                    oldest: None,
                };
                // What a claim or an outcome names is known when the flag is.
                let last = self.last_flag.as_ref().map_or("none", |flag| flag.id.as_str());
                match read(&rest.replace("LAST-FLAG", last), &receipt) {
                    Ok(event) => {
                        self.sim.append(vec![event]).await.unwrap();
                        self.sim.settle(usize::MAX).await.unwrap();
                    }
                    Err(invalid) => writeln!(out, "> refused: {} ({})", invalid.code, invalid.field).unwrap(),
                }
                self.new_flags(out).await;
            }
            "show" => {
                let (id, at) = rest
                    .split_once(' ')
                    .map_or((rest, self.sim.now()), |(id, at)| (id, time(at)));
                let Some(state) = self.sim.customer(&Self::key(id)).await.unwrap() else {
                    writeln!(out, "> nobody").unwrap();
                    return;
                };
                let model = Model::shipped().unwrap();
                let assessment = assess(&state, &model, at);
                match &assessment.attrition {
                    Ok(attrition) => write!(out, "> attrition {:.6}", attrition.score).unwrap(),
                    Err(none) => write!(out, "> attrition none ({})", none.label()).unwrap(),
                }
                for churn in &assessment.churn {
                    match &churn.outcome {
                        Ok(score) => write!(out, ", churn-{} {:.6}", churn.horizon_days, score.score).unwrap(),
                        Err(none) => write!(out, ", churn-{} none ({})", churn.horizon_days, none.label()).unwrap(),
                    }
                }
                let identities: Vec<String> = state.parts.keys().map(ToString::to_string).collect();
                let evidence = &assessment.evidence;
                let x = evidence
                    .purchases
                    .map_or_else(|| "-".to_owned(), |purchases| purchases.x.to_string());
                writeln!(out, ", {}", assessment.stage.label()).unwrap();
                writeln!(
                    out,
                    "> x {x}, active days {}, identities {}",
                    evidence.active_days,
                    identities.join(" + ")
                )
                .unwrap();
                for reason in &assessment.reasons {
                    writeln!(out, "> - {} [{}]", reason.text, reason.events.join(", ")).unwrap();
                }
            }
            "crossing" => {
                let (id, threshold) = rest.split_once(' ').unwrap();
                let state = self.sim.customer(&Self::key(id)).await.unwrap().unwrap();
                let model = Model::shipped().unwrap();
                let until = Timestamp(self.sim.now().0 + 10 * 365 * vigie_event::DAY_MS);
                match first_crossing(
                    &state,
                    &model,
                    ScoreKind::Attrition,
                    threshold.parse().unwrap(),
                    self.sim.now(),
                    until,
                ) {
                    Some(at) => writeln!(out, "> {at}").unwrap(),
                    None => writeln!(out, "> never").unwrap(),
                }
            }
            "ledger" => {
                let ledger = self.sim.customer(&Self::key(rest)).await.unwrap().unwrap().ledger;
                for (policy, entry) in &ledger.policies {
                    write!(out, "> {policy}: {}", if entry.armed { "armed" } else { "not armed" }).unwrap();
                    if let Some(code) = entry.refused {
                        let reason = Refusal::ALL.iter().find(|reason| reason.code() == code).unwrap();
                        write!(out, ", refused: {}", reason.label()).unwrap();
                    }
                    if let Some(until) = entry.cooldown_until {
                        write!(out, ", not before {until}").unwrap();
                    }
                    if let Some(course) = entry.course {
                        write!(out, ", last flag {} since {}", course.phase.label(), course.since).unwrap();
                    }
                    writeln!(out).unwrap();
                }
                writeln!(out, "> contacts {}", ledger.contacts.len()).unwrap();
            }
            "plan" => {
                let Some(flag) = &self.last_flag else {
                    writeln!(out, "> no flag yet").unwrap();
                    return;
                };
                let plan = &flag.plan;
                let segment = flag
                    .segment
                    .as_deref()
                    .map_or_else(String::new, |name| format!(" for {name}"));
                writeln!(out, "> {}{segment}: {}", flag.play, flag.customer_benefit).unwrap();
                let channel = plan.channel.as_deref().unwrap_or("any channel");
                writeln!(out, "> by {channel} from {} to {}", plan.from, plan.to).unwrap();
                let money = |minor: Option<i64>| minor.map_or_else(|| "-".to_owned(), |minor| minor.to_string());
                let (stake, most) = (money(plan.at_stake_minor), money(plan.max_cost_minor));
                let currency = plan.currency.as_deref().unwrap_or("-");
                writeln!(out, "> at stake {stake}, at most {most}, minor units of {currency}").unwrap();
                for why in &plan.why {
                    writeln!(out, "> - {} {}: {}", why.part, why.code, why.text).unwrap();
                }
            }
            "ask" => {
                let key = Self::key(rest);
                let mut state = self.sim.customer(&key).await.unwrap().unwrap();
                state.ledger.policies.clear();
                let active = self.sim.worker.status().get().active.unwrap();
                let copy = state.clone();
                let scorer = Scorer::of(&copy, &active.model);
                let mut look = Look {
                    key: &key,
                    state: &mut state,
                    scorer: &scorer,
                    model: &active.model,
                    now: self.sim.now(),
                    purchase: None,
                };
                let decided: BTreeMap<String, String> = evaluate(&active.policies, &mut look)
                    .into_iter()
                    .map(|decision| match decision {
                        Decision::Flag { flag, .. } => (flag.policy, flag.kind.label().replace('_', " ")),
                        Decision::Refused { policy, reason } => (policy, format!("refused: {}", reason.label())),
                        Decision::Ended { policy, phase, .. } => (policy, phase.label().to_owned()),
                        Decision::Moved { flag, .. } => (flag.policy, "moved".to_owned()),
                    })
                    .collect();
                for policy in &active.policies.policies {
                    let word = decided
                        .get(policy.id.as_str())
                        .map_or("below the threshold", String::as_str);
                    writeln!(out, "> {}: {word}", policy.id).unwrap();
                }
            }
            "stage" => {
                let state = self.sim.customer(&Self::key(rest)).await.unwrap().unwrap();
                let stage = assess(&state, &Model::shipped().unwrap(), self.sim.now()).stage;
                writeln!(out, "> {}", LifeStage::of(&state, stage, self.sim.now()).label()).unwrap();
            }
            "account" => {
                let state = self.sim.customer(&Self::key(rest)).await.unwrap().unwrap();
                match &state.account {
                    Some(account) => writeln!(out, "> {} since {}", account.id, account.at).unwrap(),
                    None => writeln!(out, "> none").unwrap(),
                }
            }
            "books" => {
                let books = self
                    .sim
                    .worker
                    .status()
                    .get()
                    .books
                    .get(&workspace())
                    .copied()
                    .unwrap_or_default();
                writeln!(
                    out,
                    "> applied {}, duplicate {}, suppressed {}, dead letters {}, conflicts {}",
                    books.applied, books.duplicate, books.suppressed, books.dead_letter, books.conflict
                )
                .unwrap();
            }
            other => panic!("unknown command {other:?}"),
        }
    }
}

async fn play(text: &str) -> String {
    let mut stage = Stage::new(PolicySet::shipped_text()).await;
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("> ") {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        if line == "policies" || line == "reload" {
            let mut policies = String::new();
            for line in lines.by_ref() {
                writeln!(out, "{line}").unwrap();
                if line == "end" {
                    break;
                }
                writeln!(policies, "{line}").unwrap();
            }
            if line == "reload" {
                stage.reload(&policies, &mut out).await;
            } else {
                stage = Stage::new(&policies).await;
            }
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            stage.command(line, &mut out).await;
        }
    }
    out
}

#[test]
fn every_scenario_plays_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut played = 0;
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let out = run(play(&text));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &out).unwrap();
        } else {
            assert_eq!(
                out,
                text,
                "{} plays differently; look at the change, then accept it with UPDATE_EXPECT=1",
                path.display()
            );
        }
        played += 1;
    }
    assert!(played >= 5, "only {played} scenarios in {}", dir.display());
}

#[test]
fn every_reason_that_a_policy_gives_is_one_that_is_counted() {
    let given = Refusal::ALL.iter().map(|reason| reason.label());
    assert!(given.eq(RefusalReason::ALL.iter().map(|reason| reason.as_str())));
}

/// Every reason of a refusal, every phase of a flag, every play and every stage of the life cycle occurs in some scenario.
#[test]
fn every_reason_and_every_phase_is_played() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let texts = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let all: String = texts.collect();
    for reason in Refusal::ALL {
        let told = format!(": refused: {}\n", reason.label());
        assert!(all.contains(&told), "no scenario plays {}", reason.label());
    }
    for phase in vigie_scoring::state::Phase::ALL {
        assert!(
            all.contains(&format!("last flag {}", phase.label())),
            "no scenario plays {}",
            phase.label()
        );
    }
    for play in vigie_relance::Play::ALL {
        assert!(
            all.contains(&format!("> {}", play.label())),
            "no scenario plays {}",
            play.label()
        );
    }
    for stage in LifeStage::ALL {
        assert!(
            all.contains(&format!("\n> {}\n", stage.label())),
            "no scenario shows the stage {}",
            stage.label()
        );
    }
}
