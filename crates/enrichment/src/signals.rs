//! What happened, in our words? Sources that have no word for a signal send a name; the names that the common
//! tracking plans agree on (Segment's e-commerce, e-mail and business specifications and their usual variants) are
//! recognised here. What is not recognised stays custom: kept, counted, and scored neutrally.
//!
//! The mapping is applied when the log is read, not when an event is received, so a name that is added later is
//! understood in replayed history too.

use vigie_event::{Channel, Event, Signal};

/// Names in lower case with single spaces.
const NAMES: &[(&str, Signal)] = &[
    ("order completed", Signal::Purchase),
    ("completed order", Signal::Purchase),
    ("purchase completed", Signal::Purchase),
    ("purchased", Signal::Purchase),
    ("order placed", Signal::Purchase),
    ("order refunded", Signal::Refund),
    ("refunded order", Signal::Refund),
    ("order cancelled", Signal::OrderCancel),
    ("order canceled", Signal::OrderCancel),
    ("products searched", Signal::Search),
    ("searched", Signal::Search),
    ("product list viewed", Signal::ListView),
    ("product list filtered", Signal::ListView),
    ("promotion viewed", Signal::ListView),
    ("promotion clicked", Signal::LinkClick),
    ("product clicked", Signal::LinkClick),
    ("product viewed", Signal::ProductView),
    ("viewed product", Signal::ProductView),
    ("product added", Signal::CartAdd),
    ("added product", Signal::CartAdd),
    ("added to cart", Signal::CartAdd),
    ("add to cart", Signal::CartAdd),
    ("product removed", Signal::CartRemove),
    ("removed product", Signal::CartRemove),
    ("cart viewed", Signal::CartView),
    ("checkout started", Signal::CheckoutStep),
    ("checkout step viewed", Signal::CheckoutStep),
    ("checkout step completed", Signal::CheckoutStep),
    ("payment info entered", Signal::CheckoutStep),
    ("coupon entered", Signal::CouponApply),
    ("coupon applied", Signal::CouponApply),
    ("product added to wishlist", Signal::FavouriteAdd),
    ("wishlist product added to cart", Signal::CartAdd),
    ("product shared", Signal::Share),
    ("cart shared", Signal::Share),
    ("product reviewed", Signal::ReviewSubmit),
    ("form submitted", Signal::FormSubmit),
    ("signed up", Signal::AccountCreate),
    ("account created", Signal::AccountCreate),
    ("signed in", Signal::AccountLogin),
    ("logged in", Signal::AccountLogin),
    ("invite sent", Signal::ReferralSent),
    ("email delivered", Signal::EmailDelivered),
    ("email sent", Signal::EmailSent),
    ("email opened", Signal::EmailOpen),
    ("email link clicked", Signal::EmailClick),
    ("email clicked", Signal::EmailClick),
    ("email bounced", Signal::EmailBounce),
    ("email marked as spam", Signal::EmailComplaint),
    ("unsubscribed", Signal::EmailUnsubscribe),
    ("email unsubscribed", Signal::EmailUnsubscribe),
    ("payment failed", Signal::PaymentFailed),
    ("payment disputed", Signal::PaymentDisputed),
    ("subscription started", Signal::SubscriptionStarted),
    ("subscription renewed", Signal::SubscriptionRenewed),
    ("subscription cancelled", Signal::SubscriptionCancelled),
    ("subscription canceled", Signal::SubscriptionCancelled),
    ("support ticket created", Signal::TicketOpened),
    ("ticket opened", Signal::TicketOpened),
    ("ticket created", Signal::TicketOpened),
    ("ticket closed", Signal::TicketClosed),
    ("call received", Signal::CallInbound),
    ("complaint opened", Signal::ComplaintOpened),
    ("complaint resolved", Signal::ComplaintResolved),
];

/// The signal and the channel of an event.
pub(crate) fn judge(event: &Event) -> (Signal, Channel) {
    if event.signal != Signal::Custom {
        return (event.signal, event.channel);
    }
    let signal = event.name.as_deref().map_or(Signal::Custom, named);
    let channel = if event.channel == Channel::Other { signal.default_channel() } else { event.channel };
    (signal, channel)
}

/// The signal that a name stands for: one of [`NAMES`] in any case with any separators, or a canonical signal's name.
fn named(name: &str) -> Signal {
    let words = normalised(name);
    NAMES
        .iter()
        .find(|(known, _)| *known == words)
        .map(|(_, signal)| *signal)
        .or_else(|| Signal::parse(&name.to_ascii_lowercase()))
        .unwrap_or(Signal::Custom)
}

fn normalised(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_in_any_case_and_with_any_separator() {
        for name in ["Order Completed", "order_completed", "ORDER-COMPLETED", "purchase"] {
            assert_eq!(named(name), Signal::Purchase, "{name}");
        }
        assert_eq!(named("call.inbound"), Signal::CallInbound);
        assert_eq!(named("Danced"), Signal::Custom);
        assert_eq!(named(""), Signal::Custom);
    }

    #[test]
    fn the_table_is_normalised_and_names_each_thing_once() {
        for (index, (name, _)) in NAMES.iter().enumerate() {
            assert_eq!(normalised(name), *name);
            assert!(NAMES.iter().skip(index + 1).all(|(other, _)| other != name), "{name} stands twice");
        }
    }
}
