//! Reports to the waiting room's service which tickets have streams at this edge. A ticket without a stream at any edge
//! leaves the line after the grace period.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Code;
use tracing::debug;
use tutti_model::queue::PresenceRequest;
use uuid::Uuid;

use crate::following::membership::{MemberGuard, Membership};
use crate::rooms::client::Queue;

/// Time between two reports of what changed. A report without changes renews the lease of this edge.
const REPORT: Duration = Duration::from_secs(1);
/// Time between two reports of all tickets. They repair the effect of a call that was given up and arrived late, after
/// a newer one.
const REPORT_ALL: Duration = Duration::from_secs(60);

/// The tickets of one room that have streams here. A visit between two reports counts: the grace period begins after it.
pub(crate) type Presence = Membership<u64, ()>;

/// Counts one stream of a ticket until it is dropped.
pub(crate) type Present = MemberGuard<u64, ()>;

/// Reports the tickets of one room that have streams here, for ever, under a name drawn for this room and edge.
pub(crate) async fn report(queue: &Queue, room: &str, presence: &Presence) -> Infallible {
    let edge = Uuid::from_u128(rand::random()).to_string();
    let mut reports = interval(REPORT);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut all, mut all_at) = (true, Instant::now());
    loop {
        reports.tick().await;
        all |= all_at.elapsed() >= REPORT_ALL;
        let report = if all { presence.report_all() } else { presence.report(usize::MAX) };
        let Some(report) = report else { continue };
        let request = PresenceRequest {
            room: room.to_owned(),
            edge: edge.clone(),
            all,
            opened: report.joined.iter().map(|&(ticket, ())| ticket).collect(),
            closed: report.left.clone(),
        };
        let ask = queue.ask(request, |mut q, request| async move { q.presence(request).await });
        match ask.await {
            Ok(answer) => {
                if all {
                    all_at = Instant::now();
                }
                // A service that does not know this edge has ignored the report.
                all = !answer.known;
                if all {
                    presence.put_back(report);
                    reports.reset_immediately();
                } else {
                    presence.confirm();
                }
            }
            // The room is gone, and all its tickets with it.
            Err(status) if status.code() == Code::NotFound => presence.confirm(),
            Err(status) => {
                debug!(
                    room,
                    why = status.message(),
                    "could not report to the waiting room's service which tickets have streams here; trying again"
                );
                presence.put_back(report);
            }
        }
    }
}
