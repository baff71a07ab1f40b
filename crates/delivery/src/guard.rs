//! Where a delivery may connect to: public addresses, and private ones that the operator has named.
//!
//! The check is made on the addresses that a name has just resolved to, in the resolver that the connection itself uses, for
//! every new connection: between check and connection there is no second look-up that could answer otherwise (DNS
//! rebinding). If any of the addresses is refused, all are. The table is that of IANA's special-purpose registries
//! (RFC 6890 and successors); it never asks anybody.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, such as `10.0.0.0/8` or `fd00::/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
}

/// A text that is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address or a range such as 10.0.0.0/8")]
pub struct NoRange;

impl FromStr for Range {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().map_err(|_| NoRange)?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| NoRange)?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { base, prefix }).ok_or(NoRange)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Range {
    /// Whether the address lies in the range. An IPv4 address within IPv6 (`::ffff:…`) counts as what it stands for.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => within4(address, base, self.prefix),
            (IpAddr::V6(base), IpAddr::V6(address)) => within6(address, base, self.prefix),
            _ => false,
        }
    }
}

fn within4(address: Ipv4Addr, base: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    address.to_bits() & mask == base.to_bits() & mask
}

fn within6(address: Ipv6Addr, base: Ipv6Addr, prefix: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
    address.to_bits() & mask == base.to_bits() & mask
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> (Ipv4Addr, u8) {
    (Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 3], prefix: u8) -> (Ipv6Addr, u8) {
    (Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0), prefix)
}

/// IPv4 ranges that are nobody's public host. Cloud metadata services stand in 169.254.0.0/16 and 100.64.0.0/10.
const REFUSED_V4: &[(Ipv4Addr, u8)] = &[
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// Global unicast addresses of IPv6: everything outside is refused.
const GLOBAL_V6: (Ipv6Addr, u8) = v6([0x2000, 0, 0], 3);
/// Parts of the global ones that are special: documentation, benchmarks, ORCHID, and the tunnels (Teredo, 6to4), which hold an
/// IPv4 address that would have to be judged too.
const REFUSED_V6: &[(Ipv6Addr, u8)] = &[
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32),
    v6([0x2002, 0, 0], 16),
    v6([0x3fff, 0, 0], 20),
];

/// Whether an address is a public host.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !REFUSED_V4.iter().any(|(base, prefix)| within4(address, *base, *prefix)),
        IpAddr::V6(address) => {
            within6(address, GLOBAL_V6.0, GLOBAL_V6.1)
                && !REFUSED_V6.iter().any(|(base, prefix)| within6(address, *base, *prefix))
        }
    }
}

/// Whether a delivery may connect to an address.
#[must_use]
pub fn may_connect(address: IpAddr, allowed: &[Range]) -> bool {
    is_public(address) || allowed.iter().any(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_hosts_are_public() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
        ];
        let refused = [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "fec0::1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in refused {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn ranges_open_exactly_themselves() {
        let allowed: Vec<Range> = ["10.0.0.0/8", "fd00::/8", "127.0.0.1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let may = |address: &str| may_connect(address.parse().unwrap(), &allowed);
        assert!(may("10.255.0.1") && may("::ffff:10.0.0.1") && may("fd12::1") && may("127.0.0.1") && may("1.1.1.1"));
        assert!(!may("127.0.0.2") && !may("192.168.0.1") && !may("fe80::1"));
        assert!(
            "0.0.0.0/0"
                .parse::<Range>()
                .unwrap()
                .contains("9.9.9.9".parse().unwrap())
        );
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10.0.0/8"] {
            assert_eq!(bad.parse::<Range>(), Err(NoRange), "{bad}");
        }
    }
}
