//! Tests of the scripts of the waiting room on a real Redis. Random orders of everything that can happen have the same
//! outcome in Redis and in a model. The clock of the scripts is a key that the test sets.

mod comparison;
mod earlier_life;
mod lost_keys;
mod model;
mod operations;
mod records;
mod stored;
mod stories;

const SECOND: u64 = 1_000_000;
const START: u64 = 1_800_000_000 * SECOND;
const LEASE: u64 = 10 * SECOND;
const SEED: &str = "a seed of these tests";
