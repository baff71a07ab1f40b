//! Names that stand for signals: what the event names of the common tracking plans (Segment's e-commerce, e-mail, mobile and
//! business specifications and their usual variants) mean in our vocabulary.
//!
//! Case, spaces, underscores and hyphens do not matter. A canonical signal's own name means that signal. A name that is not
//! listed means nothing to us: the event stays custom. Names that report money a second time ("Order Updated", "Payment
//! Succeeded") are left out on purpose, so that an order counts once.

use crate::Signal;

/// Normalised names, in ascending order.
const NAMES: &[(&str, Signal)] = &[
    ("account created", Signal::AccountCreate),
    ("add to cart", Signal::CartAdd),
    ("added product", Signal::CartAdd),
    ("added to cart", Signal::CartAdd),
    ("application opened", Signal::ScreenView),
    ("call abandoned", Signal::CallAbandoned),
    ("call completed", Signal::CallInbound),
    ("call received", Signal::CallInbound),
    ("cart shared", Signal::Share),
    ("cart viewed", Signal::CartView),
    ("checkout started", Signal::CheckoutStep),
    ("checkout step completed", Signal::CheckoutStep),
    ("checkout step viewed", Signal::CheckoutStep),
    ("complaint opened", Signal::ComplaintOpened),
    ("complaint resolved", Signal::ComplaintResolved),
    ("completed order", Signal::Purchase),
    ("coupon applied", Signal::CouponApply),
    ("coupon entered", Signal::CouponApply),
    ("deep link clicked", Signal::LinkClick),
    ("document downloaded", Signal::DocumentRequest),
    ("document requested", Signal::DocumentRequest),
    ("email bounced", Signal::EmailBounce),
    ("email clicked", Signal::EmailClick),
    ("email delivered", Signal::EmailDelivered),
    ("email link clicked", Signal::EmailClick),
    ("email marked as spam", Signal::EmailComplaint),
    ("email opened", Signal::EmailOpen),
    ("email sent", Signal::EmailSent),
    ("email unsubscribed", Signal::EmailUnsubscribe),
    ("form submitted", Signal::FormSubmit),
    ("invite sent", Signal::ReferralSent),
    ("link clicked", Signal::LinkClick),
    ("logged in", Signal::AccountLogin),
    ("newsletter subscribed", Signal::NewsletterSubscribe),
    ("nps survey answered", Signal::SurveyNps),
    ("order canceled", Signal::OrderCancel),
    ("order cancelled", Signal::OrderCancel),
    ("order completed", Signal::Purchase),
    ("order placed", Signal::Purchase),
    ("order refunded", Signal::Refund),
    ("page viewed", Signal::PageView),
    ("payment disputed", Signal::PaymentDisputed),
    ("payment failed", Signal::PaymentFailed),
    ("payment info entered", Signal::CheckoutStep),
    ("product added", Signal::CartAdd),
    ("product added to wishlist", Signal::FavouriteAdd),
    ("product clicked", Signal::LinkClick),
    ("product list filtered", Signal::ListView),
    ("product list viewed", Signal::ListView),
    ("product removed", Signal::CartRemove),
    ("product reviewed", Signal::ReviewSubmit),
    ("product shared", Signal::Share),
    ("product viewed", Signal::ProductView),
    ("products searched", Signal::Search),
    ("promotion clicked", Signal::LinkClick),
    ("promotion viewed", Signal::ListView),
    ("purchase completed", Signal::Purchase),
    ("purchased", Signal::Purchase),
    ("refunded order", Signal::Refund),
    ("removed product", Signal::CartRemove),
    ("screen viewed", Signal::ScreenView),
    ("searched", Signal::Search),
    ("signed in", Signal::AccountLogin),
    ("signed up", Signal::AccountCreate),
    ("subscription canceled", Signal::SubscriptionCancelled),
    ("subscription cancelled", Signal::SubscriptionCancelled),
    ("subscription renewed", Signal::SubscriptionRenewed),
    ("subscription started", Signal::SubscriptionStarted),
    ("support ticket created", Signal::TicketOpened),
    ("ticket closed", Signal::TicketClosed),
    ("ticket created", Signal::TicketOpened),
    ("ticket opened", Signal::TicketOpened),
    ("ticket replied", Signal::TicketReplied),
    ("unsubscribe", Signal::EmailUnsubscribe),
    ("unsubscribed", Signal::EmailUnsubscribe),
    ("viewed product", Signal::ProductView),
    ("wishlist product added to cart", Signal::CartAdd),
];

impl Signal {
    /// What an event of this name means.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let lower = name.trim().to_lowercase();
        if let Some(signal) = Self::parse(&lower) {
            return signal;
        }
        let words: Vec<&str> = lower
            .split([' ', '_', '-', '\t'])
            .filter(|word| !word.is_empty())
            .collect();
        let name = words.join(" ");
        let found = NAMES.binary_search_by_key(&name.as_str(), |(known, _)| known).ok();
        found
            .and_then(|at| NAMES.get(at))
            .map_or(Self::Custom, |(_, signal)| *signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ascend() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn spelling_does_not_matter_and_own_names_are_understood() {
        for (name, expected) in [
            ("Order Completed", Signal::Purchase),
            ("order_completed", Signal::Purchase),
            (" ORDER  completed ", Signal::Purchase),
            ("order-completed", Signal::Purchase),
            ("purchase", Signal::Purchase),
            ("call.inbound", Signal::CallInbound),
            ("tier.about_to_drop", Signal::TierAboutToDrop),
            ("Order Updated", Signal::Custom),
            ("", Signal::Custom),
        ] {
            assert_eq!(Signal::named(name), expected, "{name}");
        }
    }
}
