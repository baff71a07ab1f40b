//! Bounded decompression of request bodies. The output never exceeds the stated size or ratio, and memory is only
//! taken for output that is really there. Gzip only; other encodings are refused before they reach this file.

use crate::limits::Limits;
use flate2::bufread::MultiGzDecoder;
use std::io::Read;

/// Bodies that inflate to no more than this are exempt from the ratio.
const RATIO_FLOOR: usize = 64 << 10;

/// Why a body could not be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Larger than allowed, or compressed more strongly than any honest client does.
    #[error("body inflates beyond the limit")]
    Limit,
    /// Not gzip, or damaged.
    #[error("body is not valid gzip")]
    Corrupt,
}

/// `true` when the bytes begin as gzip does.
#[must_use]
pub fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

/// Inflates a whole gzip body (of one or several members).
pub fn gunzip(body: &[u8], limits: &Limits) -> Result<Vec<u8>, InflateError> {
    let by_ratio = body.len().saturating_mul(limits.inflate_ratio).max(RATIO_FLOOR);
    let max = limits.inflated_bytes.min(by_ratio);
    // The trailer names the size of the last member modulo 2^32: a lower bound of what a valid stream inflates to.
    let named = body
        .last_chunk::<4>()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    if named > max {
        return Err(if is_gzip(body) {
            InflateError::Limit
        } else {
            InflateError::Corrupt
        });
    }
    let mut inflated = Vec::with_capacity(named);
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the bounded inflate that the rule asks for"
    )]
    let decoder = MultiGzDecoder::new(body);
    let read = decoder
        .take(max as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| InflateError::Corrupt)?;
    if read > max {
        Err(InflateError::Limit)
    } else {
        Ok(inflated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn honest_bodies_come_back() {
        let plain = br#"{"user_id":"u"}"#.repeat(100);
        assert_eq!(
            gunzip(&gzip(&plain), &Limits::default()).as_deref(),
            Ok(plain.as_slice())
        );
        let twice = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(gunzip(&twice, &Limits::default()).as_deref(), Ok(b"ab".as_slice()));
    }

    #[test]
    fn bombs_stop_at_the_limit_and_one_byte_less_passes() {
        let limits = Limits {
            inflate_ratio: usize::MAX,
            inflated_bytes: 100_000,
            ..Limits::default()
        };
        assert_eq!(
            gunzip(&gzip(&vec![b' '; 100_000]), &limits).map(|out| out.len()),
            Ok(100_000)
        );
        assert_eq!(gunzip(&gzip(&vec![b' '; 100_001]), &limits), Err(InflateError::Limit));
        let halves = [gzip(&vec![b' '; 60_000]), gzip(&vec![b' '; 60_000])].concat();
        assert_eq!(gunzip(&halves, &limits), Err(InflateError::Limit));
        let bomb = gzip(&vec![b' '; 3 << 20]);
        assert!(bomb.len() * 100 < 3 << 20);
        assert_eq!(gunzip(&bomb, &Limits::default()), Err(InflateError::Limit));
    }

    #[test]
    fn damage_is_told_from_size() {
        for bad in [
            b"".as_slice(),
            b"{}",
            b"\x1f\x8b",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03garbage\0\0\0\0",
        ] {
            assert_eq!(gunzip(bad, &Limits::default()), Err(InflateError::Corrupt), "{bad:?}");
        }
        let mut cut = gzip(b"hello");
        cut.truncate(cut.len() - 9);
        assert!(gunzip(&cut, &Limits::default()).is_err());
    }
}
