//! The dead-letter journal: what could not be taken or processed, kept durably with its cause and its original bytes,
//! so that it can be listed, corrected at its source, and fed again.
//!
//! The journal is a log of its own with one partition. An entry is never changed: that a letter was fed again is
//! another entry. This file never decides what is a dead letter, and never feeds anything itself.
//!
//! Layout of an entry: one version byte, then the body in postcard. Version 1 is the only one so far; an unknown version
//! is an error, never a skipped entry. Reasons and steps are kept as their labels, so that their enums may change.
//!
//! Bound: an index of at most [`DeadLetters::MAX_INDEXED`] letters is held in memory (about 50 bytes each). Older ones
//! stay in the journal, can no longer be listed, and still count.

use crate::log::{Log, LogError, LogReader};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vigie_event::{ConsentState, Event, Offset, Partition, RejectCode, Signal, Source, Timestamp, Workspace};

/// The version that entries are written in.
const VERSION: u8 = 1;
/// The journal's only partition.
const PARTITION: Partition = Partition(0);
/// How long a read of something that is known to be there may take.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Where on its way an event was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// While the collector read it.
    Decode,
    /// While the worker folded it.
    Fold,
}

impl Step {
    /// The stable text used in answers and in the journal.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Fold => "fold",
        }
    }

    fn parse(label: &str) -> Option<Self> {
        [Self::Decode, Self::Fold]
            .into_iter()
            .find(|step| step.label() == label)
    }
}

/// The identity of a letter: a hash of its content and of when and where it was set aside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterId([u8; 16]);

impl LetterId {
    /// Reads the 32 hexadecimal digits that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something that could not be taken or processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Whose data it is.
    pub workspace: Workspace,
    /// Why.
    pub code: RejectCode,
    /// The field at fault, in the words of the protocol; empty when it is the whole.
    pub field: SmolStr,
    /// Where on its way.
    pub step: Step,
    /// The protocol that it came through.
    pub source: Source,
    /// The protocol's message type, where the path gave it and not the body ("track"); else empty.
    pub kind: SmolStr,
    /// When it was received, by our clock.
    pub received_at: Timestamp,
    /// When the client sent it, where that was said outside the event.
    pub sent_at: Option<Timestamp>,
    /// The person's user agent, where only the request named it.
    pub user_agent: Option<SmolStr>,
    /// JSON that the protocol put around a batch and that holds for each of its events (Segment's `context`, with the
    /// person's consent); else empty.
    pub context: Box<str>,
    /// Tells apart equal letters of one request (its index) or of one partition (the offset).
    pub ordinal: u64,
    /// Whether the collector counted it as accepted and as a dead letter (BOOKS-1): it answered 2xx for it. Letters of
    /// the worker are counted by the worker; bodies that were answered 4xx are in no book.
    pub accepted: bool,
    /// `true` when `raw` is not all of it, so that it cannot be fed again.
    pub cut: bool,
    /// The bytes as received, at most [`crate::limits::Limits::dead_letter_bytes`].
    pub raw: Vec<u8>,
}

impl Letter {
    /// The letter of an event that was in the log already.
    #[must_use]
    pub fn of_event(event: &Event, code: RejectCode, step: Step, ordinal: u64) -> Self {
        // RudderStack's messages are Segment's.
        let protocol = match event.source {
            Source::RudderStack => Source::Segment,
            source => source,
        };
        let kind = match (protocol, event.signal) {
            (Source::Segment, Signal::Identify) => "identify",
            (Source::Segment, Signal::Alias) => "alias",
            (Source::Segment, Signal::Group) => "group",
            (Source::Segment, Signal::PageView) => "page",
            (Source::Segment, Signal::ScreenView) => "screen",
            (Source::Segment, _) => "track",
            _ => "",
        };
        Self {
            workspace: event.workspace.clone(),
            code,
            field: SmolStr::default(),
            step,
            source: event.source,
            kind: SmolStr::new_static(kind),
            received_at: event.received_at,
            sent_at: event.sent_at,
            user_agent: event.client.user_agent.clone(),
            context: consent_context(event),
            ordinal,
            accepted: false,
            cut: false,
            raw: event.payload.as_bytes().to_vec(),
        }
    }

    /// The letter's identity: the same content at the same time gives the same id, so that writing a letter again
    /// after a crash changes nothing.
    #[must_use]
    pub fn id(&self) -> LetterId {
        let mut hasher = Sha256::new();
        for part in [
            self.workspace.as_str().as_bytes(),
            self.code.label().as_bytes(),
            self.step.label().as_bytes(),
            self.source.name().as_bytes(),
            self.kind.as_bytes(),
            &self.received_at.0.to_le_bytes(),
            &self.ordinal.to_le_bytes(),
            &self.raw,
        ] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        LetterId(digest.first_chunk().copied().unwrap_or_default())
    }
}

/// The consent that an event came with, as a context of its protocol: it may have stood around the event and not in it,
/// and feeding the event again must not lose a refusal (CONSENT-1).
fn consent_context(event: &Event) -> Box<str> {
    if !matches!(event.source, Source::Segment | Source::RudderStack) || event.consent.is_empty() {
        return Box::default();
    }
    let answers: BTreeMap<String, bool> = event
        .consent
        .iter()
        .filter_map(|(purpose, state)| {
            let name = serde_json::to_value(purpose).ok()?.as_str()?.to_owned();
            Some((name, *state == ConsentState::Granted))
        })
        .collect();
    serde_json::json!({"consent": {"categoryPreferences": answers}})
        .to_string()
        .into()
}

/// A letter as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its identity.
    pub id: LetterId,
    /// What it says.
    pub letter: Letter,
    /// Whether it was fed again.
    pub retried: bool,
}

/// A page of a listing, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The letters.
    pub letters: Vec<Stored>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A place in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(u64);

impl Cursor {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What became of one letter of [`DeadLetters::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Its identity.
    pub id: LetterId,
    /// `false` when the journal held it already.
    pub new: bool,
}

/// Why the journal could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The log below it.
    #[error("dead-letter journal cannot be read or written")]
    Log(#[from] LogError),
    /// An entry of an unknown version or damaged.
    #[error("entry {offset} of the dead-letter journal was written by a newer release or is damaged")]
    Entry {
        /// Its place in the journal.
        offset: Offset,
    },
}

/// The journal, over any log with one partition. Clones share it.
#[derive(Debug)]
pub struct DeadLetters<L> {
    log: Arc<L>,
    index: Arc<Mutex<Index>>,
}

impl<L> Clone for DeadLetters<L> {
    fn clone(&self) -> Self {
        Self {
            log: Arc::clone(&self.log),
            index: Arc::clone(&self.index),
        }
    }
}

impl<L: Log> DeadLetters<L> {
    /// Letters that can be listed.
    pub const MAX_INDEXED: usize = 200_000;

    /// Opens the journal and reads it once from its start.
    pub async fn open(log: Arc<L>) -> Result<Self, JournalError> {
        let index = Index {
            read: log.starts().first().copied().unwrap_or_default(),
            ..Index::default()
        };
        let journal = Self {
            log,
            index: Arc::new(Mutex::new(index)),
        };
        journal.refresh().await?;
        Ok(journal)
    }

    /// Reads what other processes have added since.
    pub async fn refresh(&self) -> Result<(), JournalError> {
        let end = self.log.ends().first().copied().unwrap_or_default();
        let mut at = self.index().read;
        if at >= end {
            return Ok(());
        }
        let mut reader = self.log.reader(BTreeMap::from([(PARTITION, at)]))?;
        while at < end {
            let entries = reader.next(1000, 1 << 20, READ_WAIT).await?;
            let mut index = self.index();
            for entry in entries {
                at = entry.position.offset.next();
                match decode(&entry.payload).ok_or(JournalError::Entry {
                    offset: entry.position.offset,
                })? {
                    Decoded::Letter(letter) => {
                        let _added = index.insert(letter.id(), &letter, entry.position.offset);
                    }
                    Decoded::Retried(id) => index.mark(id),
                }
            }
            index.read = index.read.max(at);
        }
        Ok(())
    }

    /// Keeps letters; durable when it returns. A letter that is there already is not written again.
    pub async fn add(&self, letters: Vec<Letter>) -> Result<Vec<Added>, LogError> {
        let mut answers = Vec::with_capacity(letters.len());
        let mut records = Vec::new();
        let mut written = Vec::new();
        {
            let index = self.index();
            for letter in letters {
                let id = letter.id();
                answers.push(Added { id, new: false });
                if index.by_id.contains_key(&id) || written.iter().any(|(_, other, _)| *other == id) {
                    continue;
                }
                records.push((PARTITION, encode(&Entry::Letter(Box::new(Body::from(&letter))))));
                written.push((answers.len() - 1, id, letter));
            }
        }
        let positions = self.log.append(records).await?;
        let mut index = self.index();
        for ((answer, id, letter), position) in written.into_iter().zip(positions) {
            let new = index.insert(id, &letter, position.offset);
            index.has_read(position.offset);
            if let Some(answer) = answers.get_mut(answer) {
                answer.new = new;
            }
        }
        Ok(answers)
    }

    /// Records that a letter was fed again; durable when it returns.
    pub async fn mark_retried(&self, id: LetterId) -> Result<(), LogError> {
        let positions = self
            .log
            .append(vec![(PARTITION, encode(&Entry::Retried { id }))])
            .await?;
        let mut index = self.index();
        index.mark(id);
        positions.iter().for_each(|position| index.has_read(position.offset));
        Ok(())
    }

    /// The letters of a workspace, newest first, from `cursor` on.
    pub async fn list(
        &self,
        workspace: &Workspace,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, JournalError> {
        self.refresh().await?;
        let before = cursor.map_or(u64::MAX, |cursor| cursor.0);
        let wanted: Vec<(u64, LetterId)> = {
            let index = self.index();
            let offsets = index.workspaces.get(workspace).map(|row| &row.letters);
            offsets
                .into_iter()
                .flat_map(|o| o.range(..before).rev())
                .take(limit.saturating_add(1))
                .map(|(&o, &i)| (o, i))
                .collect()
        };
        let more = wanted.len() > limit;
        let mut letters = Vec::with_capacity(wanted.len().min(limit));
        let mut last = None;
        for (offset, id) in wanted.into_iter().take(limit) {
            letters.push(self.read(id, Offset(offset)).await?);
            last = Some(Cursor(offset));
        }
        Ok(Page {
            letters,
            next: last.filter(|_| more),
        })
    }

    /// One letter of a workspace. A letter of another workspace is `None`, as if it did not exist (WS-1).
    pub async fn get(&self, workspace: &Workspace, id: LetterId) -> Result<Option<Stored>, JournalError> {
        self.refresh().await?;
        let place = self.index().by_id.get(&id).copied();
        let Some(place) = place else { return Ok(None) };
        let stored = self.read(id, Offset(place.offset)).await?;
        Ok(Some(stored).filter(|stored| stored.letter.workspace == *workspace))
    }

    /// How many letters the collector accepted, by workspace, over the whole journal: where the books start from.
    #[must_use]
    pub fn accepted(&self) -> BTreeMap<Workspace, u64> {
        let index = self.index();
        index
            .workspaces
            .iter()
            .map(|(workspace, row)| (workspace.clone(), row.accepted))
            .collect()
    }

    /// Whether the journal could be written now (HEALTH-1).
    #[must_use]
    pub fn health(&self) -> crate::log::Health {
        self.log.health()
    }

    async fn read(&self, id: LetterId, offset: Offset) -> Result<Stored, JournalError> {
        let mut reader = self.log.reader(BTreeMap::from([(PARTITION, offset)]))?;
        let entry = reader.next(1, usize::MAX, READ_WAIT).await?.into_iter().next();
        match entry.and_then(|entry| decode(&entry.payload)) {
            Some(Decoded::Letter(letter)) => {
                let retried = self.index().by_id.get(&id).is_some_and(|place| place.retried);
                Ok(Stored { id, letter, retried })
            }
            _ => Err(JournalError::Entry { offset }),
        }
    }

    /// A panic elsewhere cannot leave the index half-changed: its changes are made of infallible steps.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is held in memory of the journal. Ids are hashes of our own, so no map here can be made to collide.
#[derive(Debug, Default)]
struct Index {
    /// Up to where the journal was read; what several processes added at once may be read once more.
    read: Offset,
    by_id: HashMap<LetterId, Place>,
    /// Every indexed letter in the order of the journal, to know the oldest.
    order: BTreeMap<u64, Workspace>,
    workspaces: BTreeMap<Workspace, Row>,
}

#[derive(Debug, Default)]
struct Row {
    letters: BTreeMap<u64, LetterId>,
    accepted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    retried: bool,
}

impl Index {
    /// Answers `false` when the letter was there already.
    fn insert(&mut self, id: LetterId, letter: &Letter, offset: Offset) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        let row = self.workspaces.entry(letter.workspace.clone()).or_default();
        row.accepted += u64::from(letter.accepted);
        let _none = row.letters.insert(offset.0, id);
        let _none = self.order.insert(offset.0, letter.workspace.clone());
        let _none = self.by_id.insert(
            id,
            Place {
                offset: offset.0,
                retried: false,
            },
        );
        if self.order.len() > DeadLetters::<crate::log::MemoryLog>::MAX_INDEXED
            && let Some((oldest, workspace)) = self.order.pop_first()
            && let Some(row) = self.workspaces.get_mut(&workspace)
            && let Some(id) = row.letters.remove(&oldest)
        {
            let _place = self.by_id.remove(&id);
        }
        true
    }

    /// What stands there was added by this process, or read.
    fn has_read(&mut self, offset: Offset) {
        if offset == self.read {
            self.read = offset.next();
        }
    }

    fn mark(&mut self, id: LetterId) {
        if let Some(place) = self.by_id.get_mut(&id) {
            place.retried = true;
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Entry {
    Letter(Box<Body>),
    Retried { id: LetterId },
}

#[derive(Serialize, Deserialize)]
struct Body {
    workspace: Workspace,
    code: SmolStr,
    field: SmolStr,
    step: SmolStr,
    source: Source,
    kind: SmolStr,
    received_at: Timestamp,
    sent_at: Option<Timestamp>,
    user_agent: Option<SmolStr>,
    context: Box<str>,
    ordinal: u64,
    accepted: bool,
    cut: bool,
    raw: Vec<u8>,
}

impl From<&Letter> for Body {
    fn from(letter: &Letter) -> Self {
        Self {
            workspace: letter.workspace.clone(),
            code: SmolStr::new_static(letter.code.label()),
            field: letter.field.clone(),
            step: SmolStr::new_static(letter.step.label()),
            source: letter.source,
            kind: letter.kind.clone(),
            received_at: letter.received_at,
            sent_at: letter.sent_at,
            user_agent: letter.user_agent.clone(),
            context: letter.context.clone(),
            ordinal: letter.ordinal,
            accepted: letter.accepted,
            cut: letter.cut,
            raw: letter.raw.clone(),
        }
    }
}

impl Body {
    fn letter(self) -> Option<Letter> {
        Some(Letter {
            code: RejectCode::ALL.iter().copied().find(|code| code.label() == self.code)?,
            step: Step::parse(&self.step)?,
            workspace: self.workspace,
            field: self.field,
            source: self.source,
            kind: self.kind,
            received_at: self.received_at,
            sent_at: self.sent_at,
            user_agent: self.user_agent,
            context: self.context,
            ordinal: self.ordinal,
            accepted: self.accepted,
            cut: self.cut,
            raw: self.raw,
        })
    }
}

enum Decoded {
    Letter(Letter),
    Retried(LetterId),
}

fn encode(entry: &Entry) -> Bytes {
    // Writing to a growing Vec fails only for types whose length is unknown beforehand, of which there are none.
    postcard::to_extend(entry, vec![VERSION]).unwrap_or_default().into()
}

fn decode(bytes: &[u8]) -> Option<Decoded> {
    let (version, body) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    match postcard::take_from_bytes(body).ok()? {
        (Entry::Letter(body), []) => body.letter().map(Decoded::Letter),
        (Entry::Retried { id }, []) => Some(Decoded::Retried(id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            workspace: Workspace::new("shop").unwrap(),
            code: RejectCode::TimeType,
            field: "timestamp".into(),
            step: Step::Decode,
            source: Source::Segment,
            kind: "track".into(),
            received_at: Timestamp(1_795_000_000_000),
            sent_at: Some(Timestamp(1_794_999_999_000)),
            user_agent: Some("UA".into()),
            context: "{}".into(),
            ordinal: 3,
            accepted: true,
            cut: false,
            raw: b"{}".to_vec(),
        }
    }

    /// Bytes that version 1 wrote: they must stay readable for ever.
    #[test]
    fn entries_of_version_1_are_read() {
        let bytes = encode(&Entry::Letter(Box::new(Body::from(&letter()))));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "01000473686f700774735f747970650974696d657374616d70066465636f64650105747261636b\
             80f8b2e5bd6801b0e8b2e5bd6801025541027b7d030100027b7d"
        );
        assert!(matches!(decode(&bytes), Some(Decoded::Letter(read)) if read == letter()));
        let retried = encode(&Entry::Retried { id: LetterId([7; 16]) });
        assert!(matches!(decode(&retried), Some(Decoded::Retried(LetterId(id))) if id == [7; 16]));
    }

    #[test]
    fn damage_is_never_a_letter() {
        let bytes = encode(&Entry::Letter(Box::new(Body::from(&letter()))));
        assert!(decode(&[]).is_none());
        assert!(decode(&[2]).is_none());
        assert!(decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(decode(&[&bytes[..], &[0]].concat()).is_none());
    }

    #[test]
    fn ids_read_back_and_depend_on_content_and_place() {
        let id = letter().id();
        assert_eq!(LetterId::parse(&id.to_string()), Some(id));
        assert_eq!(LetterId::parse("+0000000000000000000000000000000"), None);
        assert_ne!(Letter { ordinal: 4, ..letter() }.id(), id);
        assert_eq!(letter().id(), id);
    }
}
