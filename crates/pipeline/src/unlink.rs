//! Withdrawing a link between identities (`identity.unlink`), by two records of the log: so a replay and the oracle withdraw it
//! at the same place, and no customer's history is read again.
//!
//! 1. Where the event is read, in the partition of the identity, its signpost falls: from here on its events are its own. A
//!    link with the same other identity that clients declare again has no effect.
//! 2. A `Release` goes to the record that holds the identity's data, along the signposts and behind every event that was
//!    forwarded there before; what came through the identity is taken out and goes back as a merge.
//!
//! Scores of both are then those of two customers who never met: parts and acts on mails are the identities' own, and so is
//! consent. What stays on both sides, out of caution, is named in [`vigie_scoring::state::Bonds`].

use crate::errors::WorkerError;
use crate::fold::{Batch, Who};
use vigie_event::{Body, Event, Judgement, Merge, MergePart, Partition, Release, Workspace};

impl Batch<'_> {
    /// An identity leaves the record that it points to, if it points to any.
    pub(crate) fn leave(&mut self, workspace: &Workspace, event: &Event, who: Who) -> Result<(), WorkerError> {
        let loaded = self.customer(who)?;
        let Some(linked_to) = loaded.state.leave() else {
            return Ok(());
        };
        loaded.touched = true;
        let release = Release {
            workspace: workspace.clone(),
            identity: loaded.key.person.clone(),
            linked_to: linked_to.clone(),
            holder: linked_to.clone(),
            at: event.received_at,
            by: event.id.clone(),
        };
        self.derive(linked_to.as_str(), Body::Release(release));
        Ok(())
    }

    /// A record gives back what it holds of an identity.
    pub(crate) fn release(
        &mut self,
        partition: Partition,
        release: Release,
        who: Who,
    ) -> Result<Judgement, WorkerError> {
        let clock = self.meta(partition)?.clock;
        let loaded = self.customer(who)?;
        if let Some(holder) = loaded.state.linked_to.clone() {
            self.derive(holder.clone().as_str(), Body::Release(Release { holder, ..release }));
            return Ok(Judgement::Forwarded);
        }
        let state = loaded.state.release(&release.identity).encode();
        self.look(partition, who, clock, None)?;
        let Release {
            workspace,
            identity,
            linked_to,
            at,
            by,
            ..
        } = release;
        let merge = Merge {
            workspace,
            from: linked_to,
            into: identity.clone(),
            at,
            by,
            parts: vec![MergePart { state }],
        };
        self.derive(identity.as_str(), Body::Merge(merge));
        Ok(Judgement::Noted)
    }
}
