//! The closed list of channels. A channel says where a person was met, not which software reported it.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! channels {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Where a person was met.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum Channel { $($(#[$doc])* $variant,)* }

        impl Channel {
            /// Every channel, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code used in persisted bytes.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code,)* } }

            /// The name used in JSON and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

channels! {
    /// A web site.
    Web = 0, "web";
    /// A mobile or desktop application.
    App = 1, "app";
    /// E-mail.
    Email = 2, "email";
    /// A physical shop: the till, the counter.
    Store = 3, "store";
    /// The telephone.
    Phone = 4, "phone";
    /// Text messages and messengers.
    Message = 5, "message";
    /// Letters and parcels.
    Post = 6, "post";
    /// The merchant's own systems (billing, CRM, imports).
    Backend = 7, "backend";
    /// None of the above.
    Other = 8, "other";
}

impl Channel {
    /// Reads a [`Channel::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|channel| channel.name() == name)
    }
}

impl TryFrom<u8> for Channel {
    type Error = &'static str;
    fn try_from(code: u8) -> Result<Self, Self::Error> {
        Self::ALL.get(usize::from(code)).copied().ok_or("unknown channel code")
    }
}

impl From<Channel> for u8 {
    fn from(channel: Channel) -> Self {
        channel.code()
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_names_read_back() {
        for (index, channel) in Channel::ALL.iter().enumerate() {
            assert_eq!(usize::from(channel.code()), index);
            assert_eq!(Channel::parse(channel.name()), Some(*channel));
            assert_eq!(Channel::try_from(channel.code()), Ok(*channel));
        }
        assert_eq!(Channel::try_from(200), Err("unknown channel code"));
    }
}
