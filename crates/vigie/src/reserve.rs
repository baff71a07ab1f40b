//! The log's reserve of disk space: given to the store while the disk is full, taken back when there is room. It never decides
//! when a disk counts as full; the log does.

use crate::backends::AnyLog;
use std::sync::Arc;
use std::time::Duration;
use vigie_ingestion::log::Health;

/// Time between two looks at whether the reserve can be taken again.
const RESERVE_EVERY: Duration = Duration::from_secs(10);

/// While the log has no room, its reserve belongs to the store, which can then finish what was accepted; with room again,
/// the log takes it back.
pub(crate) async fn mind(log: Arc<AnyLog>) {
    // A broker minds its own disks.
    let AnyLog::Embedded(embedded) = &*log else { return };
    let mut health = embedded.watch_health();
    loop {
        let full = matches!(*health.borrow_and_update(), Health::Degraded(_));
        let worked = Arc::clone(&log);
        let work = move || match (&*worked, full) {
            (AnyLog::Embedded(log), true) => log.free_reserve(),
            (AnyLog::Embedded(log), false) => log.restore_reserve(),
            (AnyLog::Kafka(_), _) => Ok(()),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Err(error)) => tracing::warn!(reason = %error, full, "the reserve stays as it is"),
            Ok(Ok(())) => {}
            // The runtime ends.
            Err(_) => return,
        }
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RESERVE_EVERY) => {}
        }
    }
}
