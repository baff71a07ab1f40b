//! The closed list of signals: what a person, or a merchant's system about a person, can have done. Anything else is
//! [`Signal::Custom`], kept and counted under its own name and scored neutrally. This file states facts about each
//! signal (is it the customer acting? does it move money?); it never weighs them: that is the scoring crate's work.

use crate::Channel;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose act a signal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    /// The customer did something of their own accord: it shows that they are there.
    Customer,
    /// The merchant or a system did something, or it says nothing about presence.
    Other,
}

macro_rules! signals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $actor:ident, $channel:ident;)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum Signal { $($(#[$doc])* $variant,)* }

        impl Signal {
            /// Every signal, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code used in persisted bytes; codes are never reused.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code,)* } }

            /// The name used in JSON, configuration and metrics: `family.act`.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            const fn actor(self) -> Actor { match self { $(Self::$variant => Actor::$actor,)* } }

            /// The channel of a signal that names none.
            #[must_use]
            pub const fn default_channel(self) -> Channel { match self { $(Self::$variant => Channel::$channel,)* } }
        }
    };
}

signals! {
    /// Not in this list; the event's own name says what it is.
    Custom = 0, "custom", Other, Other;
    /// A page was shown.
    PageView = 1, "page.view", Customer, Web;
    /// An application screen was shown.
    ScreenView = 2, "screen.view", Customer, App;
    /// A marked element was clicked.
    LinkClick = 3, "link.click", Customer, Web;
    /// A search was made on the site.
    Search = 4, "search", Customer, Web;
    /// A form was sent.
    FormSubmit = 5, "form.submit", Customer, Web;
    /// A list or category of products was shown.
    ListView = 6, "list.view", Customer, Web;
    /// A product was shown.
    ProductView = 7, "product.view", Customer, Web;
    /// A product was put into the cart.
    CartAdd = 8, "cart.add", Customer, Web;
    /// A product was taken out of the cart.
    CartRemove = 9, "cart.remove", Customer, Web;
    /// The cart was shown.
    CartView = 10, "cart.view", Customer, Web;
    /// A product was saved as a favourite.
    FavouriteAdd = 11, "favourite.add", Customer, Web;
    /// The checkout was begun or went on.
    CheckoutStep = 12, "checkout.step", Customer, Web;
    /// A coupon was entered.
    CouponApply = 13, "coupon.apply", Customer, Web;
    /// An order was placed and paid, or will be.
    Purchase = 14, "purchase", Customer, Web;
    /// Money of an order was given back.
    Refund = 15, "refund", Other, Backend;
    /// An order was cancelled.
    OrderCancel = 16, "order.cancel", Other, Backend;
    /// A product was reviewed.
    ReviewSubmit = 17, "review.submit", Customer, Web;
    /// Something was shared.
    Share = 18, "share", Customer, Web;
    /// A document or information was asked for.
    DocumentRequest = 19, "document.request", Customer, Web;
    /// The site failed or was slow for this person.
    PageError = 20, "page.error", Other, Web;
    /// A self-service task was done (address change, order tracking…).
    SelfService = 21, "self_service", Customer, Web;

    /// An e-mail was handed over for sending.
    EmailSent = 30, "email.sent", Other, Email;
    /// An e-mail was accepted by the recipient's server.
    EmailDelivered = 31, "email.delivered", Other, Email;
    /// An e-mail's images were loaded.
    EmailOpen = 32, "email.open", Customer, Email;
    /// A link of an e-mail was followed.
    EmailClick = 33, "email.click", Customer, Email;
    /// An e-mail could not be delivered.
    EmailBounce = 34, "email.bounce", Other, Email;
    /// An e-mail was reported as spam.
    EmailComplaint = 35, "email.complaint", Other, Email;
    /// The person unsubscribed.
    EmailUnsubscribe = 36, "email.unsubscribe", Other, Email;
    /// The person subscribed to a newsletter.
    NewsletterSubscribe = 37, "newsletter.subscribe", Customer, Web;
    /// A machine loaded an e-mail's images, by the word of who sent it: a privacy proxy or a prefetch, not a reader.
    EmailMachineOpen = 38, "email.open.machine", Other, Email;
    /// A machine followed a link of an e-mail, by the word of who sent it: a scanner, not a reader.
    EmailMachineClick = 39, "email.click.machine", Other, Email;

    /// An account was opened.
    AccountCreate = 40, "account.create", Customer, Web;
    /// The person signed in.
    AccountLogin = 41, "account.login", Customer, Web;
    /// An anonymous visitor was recognised as a known customer.
    Identify = 42, "identity.identify", Other, Other;
    /// Two ids were declared to be the same person.
    Alias = 43, "identity.alias", Other, Other;
    /// The person was put into a group or company.
    Group = 44, "identity.group", Other, Other;
    /// An identity is not the person that it was linked to.
    Unlink = 45, "identity.unlink", Other, Other;

    /// The customer called.
    CallInbound = 50, "call.inbound", Customer, Phone;
    /// The customer was called.
    CallOutbound = 51, "call.outbound", Other, Phone;
    /// The customer gave up waiting on the phone.
    CallAbandoned = 52, "call.abandoned", Customer, Phone;
    /// A support ticket was opened.
    TicketOpened = 53, "ticket.opened", Customer, Web;
    /// A support ticket was answered.
    TicketReplied = 54, "ticket.replied", Other, Backend;
    /// A support ticket was closed.
    TicketClosed = 55, "ticket.closed", Other, Backend;
    /// A complaint was made.
    ComplaintOpened = 56, "complaint.opened", Customer, Phone;
    /// A complaint's receipt was acknowledged.
    ComplaintAcknowledged = 57, "complaint.acknowledged", Other, Backend;
    /// A complaint was answered with a solution.
    ComplaintResolved = 58, "complaint.resolved", Other, Backend;
    /// A complaint's file was closed.
    ComplaintClosed = 59, "complaint.closed", Other, Backend;
    /// A closed complaint was taken up again.
    ComplaintReopened = 60, "complaint.reopened", Customer, Phone;
    /// The customer said that they are satisfied again.
    ComplaintResatisfied = 61, "complaint.resatisfied", Customer, Phone;
    /// A complaint was judged grave: its answer is to be given by telephone.
    ComplaintGrave = 62, "complaint.grave", Other, Backend;

    /// Answer to "would you recommend us", 0 to 10.
    SurveyNps = 70, "survey.nps", Customer, Web;
    /// Answer to "how satisfied are you".
    SurveyCsat = 71, "survey.csat", Customer, Web;
    /// Value expected before the experience.
    ValueExpected = 72, "satisfaction.expected", Customer, Web;
    /// Value perceived after the experience.
    ValuePerceived = 73, "satisfaction.perceived", Customer, Web;

    /// Loyalty points were earned.
    LoyaltyEarned = 80, "loyalty.earned", Other, Backend;
    /// Loyalty points were spent.
    LoyaltyRedeemed = 81, "loyalty.redeemed", Customer, Store;
    /// A loyalty tier was reached.
    TierUp = 82, "tier.up", Other, Backend;
    /// A loyalty tier was lost.
    TierDown = 83, "tier.down", Other, Backend;
    /// A loyalty tier will be lost unless the customer acts.
    TierAboutToDrop = 84, "tier.about_to_drop", Other, Backend;
    /// The customer recommended us to somebody.
    ReferralSent = 85, "referral.sent", Customer, Web;
    /// Somebody recommended by the customer joined.
    ReferralAccepted = 86, "referral.accepted", Other, Backend;

    /// A payment failed.
    PaymentFailed = 90, "payment.failed", Other, Backend;
    /// A payment was disputed.
    PaymentDisputed = 91, "payment.disputed", Other, Backend;
    /// A subscription began.
    SubscriptionStarted = 92, "subscription.started", Customer, Web;
    /// A subscription was renewed.
    SubscriptionRenewed = 93, "subscription.renewed", Other, Backend;
    /// A subscription was cancelled.
    SubscriptionCancelled = 94, "subscription.cancelled", Customer, Web;

    /// A relance or campaign message went out to the customer.
    ContactSent = 100, "contact.sent", Other, Email;
    /// The customer reacted to a contact.
    ContactAnswered = 101, "contact.answered", Customer, Phone;
    /// An agent's or system's word on how a contact ended.
    ContactOutcome = 102, "contact.outcome", Other, Backend;
    /// Something in the customer's life (move, birth, end of a contract…).
    LifeEvent = 103, "life.event", Other, Backend;

    /// Somebody took up a relance flag, which the event names.
    RelanceClaimed = 110, "relance.claimed", Other, Backend;
    /// The customer was contacted because of a relance flag, which the event names.
    RelanceContacted = 111, "relance.contacted", Other, Phone;
    /// An agent's or system's word that the customer of a relance flag, which the event names, came back.
    RelanceReturned = 112, "relance.returned", Other, Backend;
    /// The same: that they are lost.
    RelanceLost = 113, "relance.lost", Other, Backend;
    /// The same: that the flag was wrong.
    RelanceRecalled = 114, "relance.recalled", Other, Backend;

    /// An operator's word that unsubscriptions and complaints in quarantine were a machine's.
    QuarantineDismissed = 120, "quarantine.dismissed", Other, Backend;
}

impl Signal {
    /// Reads a [`Signal::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|signal| signal.name() == name)
    }

    /// The signal of a stable code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .binary_search_by_key(&code, |signal| signal.code())
            .ok()
            .and_then(|at| Self::ALL.get(at))
            .copied()
    }

    /// `true` when the customer acted of their own accord, so that the signal speaks against drifting away.
    #[must_use]
    pub fn is_engagement(self) -> bool {
        self.actor() == Actor::Customer
    }

    /// `true` for a purchase: a transaction of the repeat-buying models.
    #[must_use]
    pub fn is_purchase(self) -> bool {
        self == Self::Purchase
    }

    /// `true` for signals that give money back.
    #[must_use]
    pub fn is_refund(self) -> bool {
        self == Self::Refund
    }
}

impl TryFrom<u8> for Signal {
    type Error = &'static str;
    fn try_from(code: u8) -> Result<Self, Self::Error> {
        Self::from_code(code).ok_or("unknown signal code")
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.code()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_ascend_and_names_are_unique_and_read_back() {
        assert!(Signal::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        let names: BTreeSet<_> = Signal::ALL.iter().map(|signal| signal.name()).collect();
        assert_eq!(names.len(), Signal::ALL.len());
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.name()), Some(*signal));
            assert_eq!(Signal::from_code(signal.code()), Some(*signal));
        }
        assert_eq!(Signal::from_code(255), None);
    }
}
