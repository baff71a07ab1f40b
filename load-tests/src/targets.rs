//! The targets (`targets.toml`), and what of each was measured. A target without a figure says why there is none.

use crate::report::{CaseResult, figure};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;

/// One figure that is wanted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Target {
    /// Its name in the design.
    id: String,
    what: String,
    unit: String,
    /// What must be reached, and what would be something to be proud of.
    must: Option<f64>,
    goal: Option<f64>,
    #[serde(default)]
    better: Better,
    /// Case, run and measure.
    from: Option<[String; 3]>,
    /// The measure by which that one is divided.
    per: Option<[String; 3]>,
    /// Why there is no figure, or what the figure leaves out.
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Better {
    #[default]
    More,
    Less,
}

#[derive(Deserialize)]
struct File {
    target: Vec<Target>,
}

/// Reads them.
pub(crate) fn read(path: &Path) -> Result<Vec<Target>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let file: File = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    for target in &file.target {
        ensure!(
            target.from.is_some() || target.note.is_some(),
            "{}: {} names neither a measure nor a reason for not having one",
            path.display(),
            target.id
        );
    }
    Ok(file.target)
}

impl Target {
    fn measured(&self, cases: &[CaseResult]) -> Option<f64> {
        let value = find(cases, self.from.as_ref()?)?;
        match &self.per {
            None => Some(value),
            Some(per) => Some(value / find(cases, per)?),
        }
    }

    fn reaches(&self, value: f64, wanted: Option<f64>) -> bool {
        wanted.is_some_and(|wanted| match self.better {
            Better::More => value >= wanted,
            Better::Less => value <= wanted,
        })
    }

    fn verdict(&self, cases: &[CaseResult]) -> String {
        let Some(value) = self.measured(cases) else {
            return match (&self.from, &self.note) {
                (None, Some(note)) => format!("not measured: {note}"),
                _ => "not measured: its run came to no end, or was not asked for".to_owned(),
            };
        };
        let verdict = if self.reaches(value, self.goal) {
            "goal reached"
        } else if self.must.is_none() || self.reaches(value, self.must) {
            "required reached"
        } else {
            "**missed**"
        };
        match &self.note {
            Some(note) => format!("{verdict}; {note}"),
            None => verdict.to_owned(),
        }
    }
}

fn find(cases: &[CaseResult], [case, run, measure]: &[String; 3]) -> Option<f64> {
    let case = cases.iter().find(|one| one.experiment.name == *case)?;
    let run = case.runs.iter().find(|one| one.name == *run)?;
    run.measures.get(measure)
}

/// One row for each target.
pub(crate) fn table(out: &mut String, targets: &[Target], cases: &[CaseResult]) {
    let _ = writeln!(
        out,
        "\n## Targets\n\n| target | what | unit | required | goal | measured | verdict |\n|---|---|---|---|---|---|---|"
    );
    let cell = |value: Option<f64>| value.map_or("–".to_owned(), figure);
    for target in targets {
        let sign = match target.better {
            Better::More => "≥",
            Better::Less => "≤",
        };
        let wanted = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{sign} {}", figure(value)));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            target.id,
            target.what,
            target.unit,
            wanted(target.must),
            wanted(target.goal),
            cell(target.measured(cases)),
            target.verdict(cases)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment;
    use crate::report::{Measures, RunResult};
    use std::collections::BTreeSet;

    fn target(text: &str) -> Target {
        toml::from_str(text).unwrap()
    }

    fn results(value: f64) -> Vec<CaseResult> {
        let mut experiments = experiment::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).unwrap();
        let mut experiment = experiments.remove(0);
        experiment.name = "a".to_owned();
        let mut measures = Measures::default();
        measures.put("x/s", value);
        measures.put("y/s", 10.0);
        let run = RunResult {
            measures,
            ..RunResult::new("r")
        };
        vec![CaseResult {
            experiment,
            runs: vec![run],
            not_measured: None,
        }]
    }

    #[test]
    fn a_miss_is_called_a_miss() {
        let more = target("id='T'\nwhat=''\nunit=''\nmust=10\ngoal=20\nfrom=['a','r','x/s']");
        let less = target("id='T'\nwhat=''\nunit=''\nmust=10\ngoal=5\nbetter='less'\nfrom=['a','r','x/s']");
        let per = target("id='T'\nwhat=''\nunit=''\nmust=1\nfrom=['a','r','x/s']\nper=['a','r','y/s']");
        for (value, verdicts) in [
            (4.0, ["**missed**", "goal reached", "**missed**"]),
            (12.0, ["required reached", "**missed**", "required reached"]),
            (25.0, ["goal reached", "**missed**", "required reached"]),
        ] {
            let cases = results(value);
            assert_eq!(
                [&more, &less, &per].map(|target| target.verdict(&cases)),
                verdicts,
                "{value}"
            );
        }
        let none = target("id='T'\nwhat=''\nunit=''\nmust=10\nnote='no disk'");
        assert_eq!(none.verdict(&results(1.0)), "not measured: no disk");
    }

    #[test]
    fn every_target_of_the_repository_names_a_case_and_a_run_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let runs: BTreeSet<(String, String)> = experiment::all(&root.join("cases"))
            .unwrap()
            .iter()
            .flat_map(|experiment| {
                let names = experiment.case.runs();
                names.into_iter().map(|run| (experiment.name.clone(), run.to_owned()))
            })
            .collect();
        for target in read(&root.join("targets.toml")).unwrap() {
            for [case, run, _] in target.from.iter().chain(&target.per) {
                assert!(
                    runs.contains(&(case.clone(), run.clone())),
                    "{}: {case} {run}",
                    target.id
                );
            }
        }
    }
}
