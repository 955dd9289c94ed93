//! The order of the visitors who joined before a room opened: a lottery that anyone can check.
//!
//! The ticket numbers 1 to `early` receive the places 1 to `early` by a permutation that the seed determines. The SHA-256
//! of the seed is published when the room is made, the seed itself when the room opens. The permutation is a balanced
//! Feistel network (Luby and Rackoff 1988) over the numbers below the next power of four, applied again until the number
//! is in range (Black and Rogaway 2002, "cycle walking"):
//!
//! - `m` is the smallest power of two, at least 2, with `m * m >= early`; the number `x = ticket - 1` is split into
//!   `left = x / m` and `right = x mod m`;
//! - six rounds, `i` from 1: `(left, right) = (right, left xor f(i, right))`, where `f` is the first four bytes of
//!   `SHA-1("<seed>:<i>:<right>")` as a big-endian number, mod `m`;
//! - `x = left * m + right`, and again from the split while `x >= early`. The place is `x + 1`.
//!
//! `crates/queue/src/lua/lottery.lua` and `examples/gateway/lottery.mjs` compute the same permutation.

use sha1::{Digest as _, Sha1};

/// The rounds of the Feistel network.
const ROUNDS: u32 = 6;

/// Returns the place of a ticket in the line, from 1. The place of a ticket above `early` is its number.
pub fn place_of(ticket: u64, early: u64, seed: &str) -> u64 {
    if ticket > early || ticket == 0 {
        return ticket;
    }
    let modulus = (1..32).map(|bits| 1u64 << bits).find(|m| m * m >= early).unwrap_or(1 << 32);
    let mut x = ticket - 1;
    loop {
        let (mut left, mut right) = (x / modulus, x % modulus);
        for i in 1..=ROUNDS {
            (left, right) = (right, left ^ round(seed, i, right, modulus));
        }
        x = left * modulus + right;
        if x < early {
            return x + 1;
        }
    }
}

/// Returns the value that one round mixes into the left half.
fn round(seed: &str, i: u32, half: u64, modulus: u64) -> u64 {
    let hash = Sha1::digest(format!("{seed}:{i}:{half}"));
    u64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) % modulus
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn early_tickets_get_each_place_once_and_later_ones_their_number(early in 0u64..700, seed in "[0-9a-f]{8}") {
            let places: BTreeSet<u64> = (1..=early).map(|ticket| place_of(ticket, early, &seed)).collect();
            prop_assert_eq!(places, (1..=early).collect::<BTreeSet<u64>>());
            prop_assert_eq!(place_of(early + 1, early, &seed), early + 1);
        }
    }

    #[test]
    fn the_permutation_is_the_one_that_earlier_versions_drew() {
        let seed = "0123456789abcdef0123456789abcdef";
        let places: Vec<u64> = (1..=20).map(|ticket| place_of(ticket, 20, seed)).collect();
        assert_eq!(places, [10, 19, 13, 9, 16, 2, 8, 20, 7, 1, 11, 4, 3, 5, 6, 17, 18, 15, 14, 12]);
        let places = [1, 2, 50_000, 99_999, 100_000].map(|ticket| place_of(ticket, 100_000, seed));
        assert_eq!(places, [94_048, 77_641, 39_583, 37_570, 16_562]);
    }

    #[test]
    fn another_seed_is_another_order() {
        let order = |seed: &str| (1..=100).map(|t| place_of(t, 100, seed)).collect::<Vec<_>>();
        assert_ne!(order("a"), order("b"));
        assert_ne!(order("a"), (1..=100).collect::<Vec<_>>());
    }
}
