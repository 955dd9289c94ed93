//! Reports to the registry in Redis which devices of users are connected to this edge.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;
use tutti_feed::ConnectionRegistry;

use crate::following::membership::{MemberGuard, Membership};

/// Time between two reports of what changed.
const REPORT: Duration = Duration::from_secs(1);
/// Number of ticks between two renewals of the lease of this edge.
const RENEW_EVERY: u32 = 5;
/// Largest number of changes in one report, less than the queue of the Redis driver holds. The others wait for the next
/// report.
const MAX_CHANGES: usize = 5000;

/// The devices with streams here, by user and name, each with the time when its first stream began, in milliseconds
/// since 1970.
pub(crate) type Connections = Membership<(String, String), i64>;

/// Counts one stream of a device until it is dropped.
pub(crate) type Connection = MemberGuard<(String, String), i64>;

/// Reports the devices to the registry and renews the lease of this edge, for ever. A change of `connection_epoch` says
/// that Redis was connected to again, so all devices are reported.
pub(crate) async fn report(
    connections: &Connections,
    registry: &ConnectionRegistry,
    mut connection_epoch: watch::Receiver<u64>,
) -> Infallible {
    let mut ticks = interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A renewal that was not answered may have received the news that the lease had ended. All is reported after it.
    let mut lease_in_doubt = false;
    let mut renewal = (0..RENEW_EVERY).cycle();
    loop {
        ticks.tick().await;
        if connection_epoch.has_changed().unwrap_or(false) {
            connection_epoch.mark_unchanged();
            connections.repeat_all();
        }
        if renewal.next() == Some(0) {
            match registry.renew_lease().await {
                Ok(was_dead) => {
                    if was_dead || std::mem::take(&mut lease_in_doubt) {
                        connections.repeat_all();
                    }
                }
                Err(error) => {
                    lease_in_doubt = true;
                    debug!(%error, "could not renew the lease of this edge in the registry; trying again");
                }
            }
        }
        let Some(changes) = connections.report(MAX_CHANGES) else { continue };
        match registry.update(&changes.joined, &changes.left).await {
            Ok(()) => connections.confirm(),
            Err(error) => {
                debug!(%error, "could not write connections to the registry; trying again");
                connections.put_back(changes);
            }
        }
    }
}
