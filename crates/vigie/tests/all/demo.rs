//! `vigie demo` as somebody runs it who has just built it: it must show live scores and flags, with nothing set up. It
//! never judges the numbers; other tests do.

use crate::support::run;

/// Runs a demonstration with its streams going to files, and answers what it printed.
#[track_caller]
fn demo(args: &[&str]) -> String {
    let ran = run(&[&["demo", "--once", "--port", "0"], args].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for (stream, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{stream} is no terminal: {text:?}");
    }
    ran.stdout
}

/// The lines below the one that contains `title`, up to an empty one.
fn block<'a>(text: &'a str, title: &str) -> Vec<&'a str> {
    text.lines()
        .skip_while(|line| !line.contains(title))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect()
}

#[track_caller]
fn check(printed: &str) {
    let scores = block(printed, "live scores");
    assert!(
        scores.len() > 1 && scores.iter().skip(1).all(|row| row.contains("at_risk")),
        "{printed}"
    );
    let flags = block(printed, "relance flags raised so far");
    assert!(
        !flags.is_empty()
            && flags
                .iter()
                .all(|row| row.contains("flagged") || row.contains("held_out")),
        "{printed}"
    );
    assert!(printed.contains(" 0 in flight"), "{printed}");
    assert!(printed.contains("http://127.0.0.1:"), "{printed}");
}

#[test]
fn the_simulated_shop_shows_live_scores_and_flags() {
    check(&demo(&["--customers", "300"]));
}

#[test]
fn cdnow_shows_live_scores_and_flags() {
    let printed = demo(&["--data", "cdnow"]);
    check(&printed);
    assert!(printed.contains("6919 events accepted: 6919 applied"), "{printed}");
}
