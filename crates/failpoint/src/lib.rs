//! Named points at which a test ends the process, and named mutants: deliberate mistakes that a test must notice.
//!
//! It owns two words of the code under test, [`point!`] and [`mutant`], and the variables of the environment that arm
//! them. It never changes anything unless the feature `armed` is on, which only dev-dependencies switch on: without
//! it a point is nothing and a mutant is constantly `false`.
//!
//! # Contract
//!
//! `VIGIE_FAILPOINT=name:n` aborts the process at the n-th passage of the point `name`, counted over all threads from 1;
//! it says so on standard error first, so that a test can tell this death from any other. An abort runs no destructor,
//! flushes no buffer and answers nobody: what is left is what the system calls before it did.
//!
//! `VIGIE_FAILPOINT_STOP=name:file` stops the process (SIGSTOP, all its threads) at the first passage of the point after the
//! file has come into being; the file is removed first, so that this happens once for each file. SIGCONT lets it go on where
//! it stood, as a machine that was suspended does.
//!
//! `VIGIE_MUTANT=name` makes `mutant("name")` true. [`with_mutant`] does the same for one closure on one thread, for tests
//! within one process.
//!
//! The variables are read once. A variable that does not fit its form arms nothing and is reported on standard error.

#[cfg(feature = "armed")]
mod armed;
#[cfg(feature = "armed")]
pub use armed::{mutant, pass, with_mutant};

/// A place where a test can end the process. The name is `<part>.<step>.before` or `<part>.<step>.after`.
#[macro_export]
macro_rules! point {
    ($name:literal) => {
        $crate::pass($name)
    };
}

/// Passes a point; [`point!`] is how to write it.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub const fn pass(_name: &str) {}

/// Whether the mistake of this name is to be made.
#[cfg(not(feature = "armed"))]
#[inline(always)]
#[must_use]
pub const fn mutant(_name: &str) -> bool {
    false
}
