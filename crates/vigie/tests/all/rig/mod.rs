//! What the fault tests share: events and a client that remembers what it was told, a server that dies in a way that the
//! test chose, and one verdict over what it left behind.
//!
//! The rule of all of it: a run in which the fault did not happen is *not measured*, and a test with fewer measured runs
//! than it promised fails. Nothing here ever counts an undisturbed run as a pass.

pub(crate) mod scenario;
pub(crate) mod strace;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs the work for every job, on two threads: two servers are what a small machine carries.
pub(crate) fn two_at_a_time<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let one = || {
        let mut done = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(job));
        }
        done
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(one), scope.spawn(one)];
        let done = threads.map(|thread| thread.join().unwrap_or_else(|why| std::panic::resume_unwind(why)));
        done.into_iter().flatten().collect()
    })
}
