//! Random stories, in Redis and in the model side by side.

use proptest::prelude::prop;
use proptest::test_runner::{Config, TestRunner};
use tutti_e2e::redis::Redis;
use tutti_model::RoomSettings;

use super::START;
use super::comparison::Pair;
use super::operations::{op, settings};

/// Runs cases on one Redis, without the macros of proptest, which do not support async.
fn check(cases: u32, opens_after_ms: u64, most: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let redis = runtime.block_on(async { Redis::start().unwrap() });
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let story = (settings(), prop::collection::vec(op(), 1..120));
    let outcome = runner.run(&story, |(settings, ops)| {
        runtime.block_on(async {
            let opens_at_ms = if opens_after_ms > 0 { START / 1000 + opens_after_ms } else { 0 };
            let mut pair = Pair::new(&redis, RoomSettings { opens_at_ms, ..settings }, most).await;
            for op in &ops {
                pair.apply(op).await?;
            }
            pair.compare_records().await
        })
    });
    runtime.block_on(async move { drop(redis) });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn whatever_happens_in_a_room_its_scripts_do_what_the_plain_model_does() {
    check(120, 0, 500);
}

#[test]
fn the_same_before_and_after_an_opening() {
    check(80, 20_000, 500);
}

#[test]
fn a_tick_that_does_little_at_a_time_comes_to_the_same_end() {
    check(80, 10_000, 2);
}
