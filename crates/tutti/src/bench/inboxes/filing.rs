//! Notifications that are filed in mailboxes.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::ensure;
use fred::prelude::*;
use rand::Rng as _;
use tutti_feed::{Filing, MailboxLimits, MailboxMetrics, Mailboxes};
use tutti_model::names;

use super::rig::DAY;
use crate::bench::report::{row, say};
use crate::bench::stage::Stage;

/// Notifications in one batch. Ingest files as many.
const BATCH: usize = 512;

/// Measures filing, beside a bare log and a bare publication.
pub(super) async fn appends(stage: &Stage) -> anyhow::Result<()> {
    say(&format!("notifications filed a second, {BATCH} in a batch, in mailboxes of 10,000 users:"));
    let payload = bytes::Bytes::from(vec![b'x'; 250]);
    let bare = stage.median(async || bare_appends(stage, &payload).await).await?;
    row("bare XADD and PUBLISH of each, in a pipeline", &format!("{bare:.0}"));
    let keep = MailboxLimits { items: 200, bytes: 256 << 10, age: 30 * DAY };
    let metrics = MailboxMetrics::default();
    let mailboxes = Mailboxes::new(stage.client.clone(), names::INBOX, 1, keep, metrics.clone());
    let ours = stage.median(async || filings(&mailboxes, &payload).await).await?;
    ensure!(metrics.known.get() == 0 && metrics.filed.get() >= 50_000, "each was filed");
    row(
        "filed, with ids that are known for a day",
        &format!("{ours:.0}, {:.2} of it (goal 0.5)", ours / bare),
    );
    Ok(())
}

async fn bare_appends(stage: &Stage, payload: &bytes::Bytes) -> anyhow::Result<f64> {
    let began = Instant::now();
    let batches = 200;
    for _ in 0..batches {
        let pipeline = stage.client.pipeline();
        for _ in 0..BATCH {
            let fields = vec![("r", payload.clone())];
            let () = pipeline.xadd("bare", false, ("MAXLEN", "~", 100_000), "*", fields).await?;
            let () = pipeline.publish("bare", payload.clone()).await?;
        }
        let _: Vec<fred::types::Value> = pipeline.all().await?;
    }
    Ok((batches * BATCH) as f64 / began.elapsed().as_secs_f64())
}

async fn filings(mailboxes: &Mailboxes, payload: &bytes::Bytes) -> anyhow::Result<f64> {
    let began = Instant::now();
    let batches = 100;
    for _ in 0..batches {
        let mut buckets: BTreeMap<u32, Vec<Filing>> = BTreeMap::new();
        for _ in 0..BATCH {
            let address = format!("user:b-{}", rand::rng().random_range(0..10_000));
            let bucket = mailboxes.bucket_of(address.as_bytes());
            let id = format!("{:032x}", rand::random::<u128>());
            let filing = Filing { address, id, expires_us: u64::MAX, payload: payload.clone() };
            buckets.entry(bucket).or_default().push(filing);
        }
        let filed = buckets.iter().map(|(bucket, filings)| mailboxes.file(*bucket, filings));
        futures_util::future::try_join_all(filed).await?;
    }
    Ok((batches * BATCH) as f64 / began.elapsed().as_secs_f64())
}
