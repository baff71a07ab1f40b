//! The entry point: hands the arguments to the command line and turns its outcome into an exit code. It never does
//! anything else.

use std::process::ExitCode;

/// Records are read on one thread and freed on another all the time, which glibc's allocator answers with locks and
/// consolidation: it was half of the worker's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vigie::cli::run()
}
