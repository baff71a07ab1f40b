//! A seeded generator (SplitMix64) and where its seed comes from: `VIGIE_SEED`, or a new one for each run, which is printed.

pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// `true` in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }
}

/// The seed of this run.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let seed = match std::env::var("VIGIE_SEED") {
        Ok(text) => text.parse().expect("VIGIE_SEED must be a number"),
        Err(_) => RandomState::new().hash_one(0u8),
    };
    println!("VIGIE_SEED={seed}");
    seed
}
