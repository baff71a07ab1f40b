//! Faults of the process and of the disk, on the embedded product: the fast half of section b.1 of the failure model. The
//! slow half is `tests/long`, the half that needs root `tests/faults`; faults that need no server are tested beside the
//! log and the store.
//!
//! | fault | where |
//! |---|---|
//! | F01 `kill -9` at system calls, F03 again while recovering | `syscalls`, `tests/long` |
//! | F02 death at named points of the step | `points` |
//! | F04 power loss | `tests/faults`, `tests/long` |
//! | F05 torn tail, F06 rot | `tests/all` of ingestion and of store |
//! | F07 fdatasync fails, F08 no space | `errors`, on a full file system `tests/faults` |
//! | F12 stop under load, F13 two processes | `processes` |

mod errors;
mod points;
mod processes;
mod syscalls;
