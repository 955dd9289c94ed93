//! The settings of inboxes.

use std::time::Duration;

use crate::settings::Settings;

const DAY_SECONDS: u64 = 86_400;

/// What defines the inboxes. All services that share a Redis must agree on it.
#[derive(Clone, Copy, Debug)]
pub struct Inboxes {
    /// Number of feeds that mailboxes are spread over.
    pub buckets: u32,
    /// Notifications that a mailbox keeps at most.
    pub items: u32,
    /// Bytes of notifications that a mailbox keeps at most.
    pub bytes: u32,
    /// Age at which a notification leaves its mailbox.
    pub age: Duration,
}

impl Inboxes {
    /// Reads the settings `inbox.*`.
    pub fn configure(settings: &mut Settings) -> Self {
        // An edge with more users than buckets follows all buckets anyway. Fewer buckets mean fewer heads to poll each
        // second and more notifications in each call of the script; a call by itself costs as much as two notifications.
        let buckets = settings.number(
            "inbox.buckets",
            1u32,
            1..=256,
            "feeds that the inboxes are spread over: 1 files most per call; a Redis Cluster needs several per node",
        );
        let items = settings.number(
            "inbox.keep",
            200u32,
            1..=1000,
            "notifications that an inbox keeps; the oldest go first",
        );
        let bytes = settings.number(
            "inbox.keep_bytes",
            256 << 10,
            1 << 10..=4 << 20,
            "bytes of notifications that an inbox keeps",
        );
        let days = settings.number(
            "inbox.keep_days",
            30u64,
            1..=366,
            "days for which an inbox keeps a notification",
        );
        Self { buckets, items, bytes, age: Duration::from_secs(days * DAY_SECONDS) }
    }

    /// Returns the settings that all services must agree on, by their names.
    pub fn agreement(&self) -> [(&'static str, String); 4] {
        [
            ("inbox.buckets", self.buckets.to_string()),
            ("inbox.keep", self.items.to_string()),
            ("inbox.keep_bytes", self.bytes.to_string()),
            ("inbox.keep_days", (self.age.as_secs() / DAY_SECONDS).to_string()),
        ]
    }
}
