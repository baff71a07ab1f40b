//! What happened, in our words? A source that has no word for a signal sends a name; a name that stands for a signal
//! ([`Signal::named`]) is understood here. What is not understood stays custom: kept, counted, and scored neutrally.
//!
//! The names are looked up when the log is read, not only when an event is received, so that a name which is learnt later
//! is understood in replayed history too.

use vigie_event::{Channel, Event, Signal};

/// The signal and the channel of an event.
pub(crate) fn judge(event: &Event) -> (Signal, Channel) {
    if event.signal != Signal::Custom {
        return (event.signal, event.channel);
    }
    let signal = event.name.as_deref().map_or(Signal::Custom, Signal::named);
    let channel = if event.channel == Channel::Other {
        signal.default_channel()
    } else {
        event.channel
    };
    (signal, channel)
}
