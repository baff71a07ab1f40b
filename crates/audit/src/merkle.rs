//! A Merkle tree over a partition's records, so that two machines can compare one line: the tree of RFC 6962, section 2.1,
//! with SHA-256. A leaf is hashed behind a byte 0, a node behind a byte 1, so that neither can be taken for the other; a list
//! is split at the largest power of two below its length.
//!
//! The leaf of a customer record is its key's bytes and the SHA-256 of its canonical bytes; the leaf of a partition in the tree
//! over all partitions is its number (big-endian) and its root. The tree is built as the leaves come, in memory that grows
//! with the logarithm of their number.

use sha2::{Digest, Sha256};
use std::fmt;
use vigie_event::{CustomerKey, Partition};

/// The root of a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Root(pub [u8; 32]);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tree that is being built.
#[derive(Debug, Clone, Default)]
pub struct Merkle {
    /// Roots of complete subtrees with their heights, which fall.
    complete: Vec<(u32, [u8; 32])>,
}

impl Merkle {
    /// Adds the next leaf.
    pub fn leaf(&mut self, data: &[&[u8]]) {
        let mut hash = Sha256::new();
        hash.update([0]);
        data.iter().for_each(|data| hash.update(data));
        let (mut height, mut right) = (0, hash.finalize().into());
        while let Some((_, left)) = self.complete.pop_if(|(of, _)| *of == height) {
            right = node(&left, &right);
            height += 1;
        }
        self.complete.push((height, right));
    }

    /// Adds the next customer record. They come in the order of their keys.
    pub fn customer(&mut self, key: &CustomerKey, state: &[u8]) {
        // An identifier holds no control character, so a zero ends the workspace.
        let kind = if key.person.is_known() { [0, 0] } else { [0, 1] };
        let digest = Sha256::digest(state);
        self.leaf(&[
            key.workspace.as_str().as_bytes(),
            &kind,
            key.person.as_str().as_bytes(),
            &digest,
        ]);
    }

    /// Adds the next partition.
    pub fn partition(&mut self, partition: Partition, root: Root) {
        self.leaf(&[&partition.0.to_be_bytes(), &root.0]);
    }

    /// The root over all leaves so far; of none, the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Root {
        let mut subtrees = self.complete.iter().rev();
        let Some((_, last)) = subtrees.next() else {
            return Root(Sha256::digest([]).into());
        };
        Root(subtrees.fold(*last, |right, (_, left)| node(left, &right)))
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MTH of RFC 6962, section 2.1, word for word.
    fn by_definition(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [only] => Sha256::digest([&[0], only.as_slice()].concat()).into(),
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                let halves = [by_definition(&leaves[..k]), by_definition(&leaves[k..])].concat();
                Sha256::digest([&[1], halves.as_slice()].concat()).into()
            }
        }
    }

    fn built(leaves: &[Vec<u8>]) -> Root {
        let mut tree = Merkle::default();
        leaves.iter().for_each(|leaf| tree.leaf(&[leaf]));
        tree.root()
    }

    #[test]
    fn the_tree_is_that_of_the_definition() {
        for number in 0..=130u8 {
            let leaves: Vec<Vec<u8>> = (0..number).map(|n| vec![n; usize::from(n % 5)]).collect();
            assert_eq!(built(&leaves).0, by_definition(&leaves), "{number} leaves");
        }
    }

    /// The tests of the Certificate Transparency project (`merkletree`, published with RFC 6962): its eight inputs.
    #[test]
    fn the_published_roots_come_out() {
        let hex = |text: &str| -> Vec<u8> {
            let digits = text.as_bytes().chunks(2);
            digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        };
        let leaves: Vec<Vec<u8>> = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        .map(hex)
        .to_vec();
        for (number, root) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(built(&leaves[..number]).to_string(), root, "{number} leaves");
        }
    }
}
