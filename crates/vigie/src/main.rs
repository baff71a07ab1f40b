//! The entry point: hands the arguments to the command line and turns its outcome into an exit code. It never does
//! anything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    vigie::cli::run()
}
