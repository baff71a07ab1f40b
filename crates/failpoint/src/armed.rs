//! The armed half: reads the variables, counts passages, ends or stops the process. It never touches any other.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The point at which the process ends.
struct Target {
    name: String,
    passage: u64,
    passed: AtomicU64,
}

thread_local! {
    static MUTANTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Nothing is left to do when standard error is closed.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn parse(text: &str) -> Option<Target> {
    let (name, passage) = text.rsplit_once(':')?;
    let passage = passage.parse().ok().filter(|passage| *passage > 0)?;
    Some(Target {
        name: name.to_owned(),
        passage,
        passed: AtomicU64::new(0),
    })
}

fn target() -> Option<&'static Target> {
    static TARGET: OnceLock<Option<Target>> = OnceLock::new();
    let read = || {
        let text = std::env::var("VIGIE_FAILPOINT").ok()?;
        let target = parse(&text);
        if target.is_none() {
            say(&format!("failpoint: {text:?} is not of the form name:passage\n"));
        }
        target
    };
    TARGET.get_or_init(read).as_ref()
}

/// The point at which the process stops, and the file whose presence says that it is time.
fn stop() -> Option<&'static (String, PathBuf)> {
    static STOP: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();
    let read = || {
        let text = std::env::var("VIGIE_FAILPOINT_STOP").ok()?;
        let target = text.split_once(':').map(|(name, file)| (name.to_owned(), file.into()));
        if target.is_none() {
            say(&format!("failpoint: {text:?} is not of the form name:file\n"));
        }
        target
    };
    STOP.get_or_init(read).as_ref()
}

/// Stops all threads of this process, until somebody sends it SIGCONT.
fn sleep_like_the_dead(name: &str, file: &Path) {
    if std::fs::remove_file(file).is_ok() {
        say(&format!("failpoint: {name} stops the process\n"));
        // The standard library sends no signals; a shell does, to the process that started it.
        let _ = std::process::Command::new("sh")
            .args(["-c", "kill -STOP $PPID"])
            .status();
        say(&format!("failpoint: {name} goes on\n"));
    }
}

/// Passes a point: counts, and ends or stops the process when its time has come.
pub fn pass(name: &str) {
    if let Some((_, file)) = stop().filter(|(at, _)| at == name) {
        sleep_like_the_dead(name, file);
    }
    if let Some(target) = target()
        && target.name == name
        && target.passed.fetch_add(1, Ordering::SeqCst) + 1 == target.passage
    {
        say(&format!("failpoint: {name}:{} aborts the process\n", target.passage));
        std::process::abort();
    }
}

/// Whether the mistake of this name is to be made.
#[must_use]
pub fn mutant(name: &str) -> bool {
    static MUTANT: OnceLock<Option<String>> = OnceLock::new();
    let of_process = MUTANT.get_or_init(|| std::env::var("VIGIE_MUTANT").ok());
    of_process.as_deref() == Some(name) || MUTANTS.with_borrow(|mutants| mutants.iter().any(|mutant| mutant == name))
}

/// Makes the mistake of this name while `work` runs, on this thread.
pub fn with_mutant<T>(name: &str, work: impl FnOnce() -> T) -> T {
    struct Disarm;
    impl Drop for Disarm {
        fn drop(&mut self) {
            let _name = MUTANTS.with_borrow_mut(Vec::pop);
        }
    }
    MUTANTS.with_borrow_mut(|mutants| mutants.push(name.to_owned()));
    let _disarm = Disarm;
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_lives_as_long_as_its_closure_and_on_its_thread() {
        assert!(!mutant("a"));
        with_mutant("a", || {
            assert!(mutant("a") && !mutant("b"));
            with_mutant("b", || assert!(mutant("a") && mutant("b")));
            assert!(!mutant("b"));
            assert!(!std::thread::spawn(|| mutant("a")).join().unwrap());
        });
        assert!(!mutant("a"));
        let panicked = std::panic::catch_unwind(|| with_mutant("a", || panic!("on purpose")));
        assert!(panicked.is_err() && !mutant("a"));
    }

    #[test]
    fn targets_are_a_name_and_a_passage() {
        let target = parse("log.sync.before:3").unwrap();
        assert_eq!((target.name.as_str(), target.passage), ("log.sync.before", 3));
        for bad in ["", "log.sync", "log.sync:", "log.sync:0", "log.sync:x"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
