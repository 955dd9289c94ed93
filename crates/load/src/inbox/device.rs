//! A device of a user, and what it has heard.

use std::collections::HashMap;

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::Instant;

use crate::sse::Event;

/// A device, and what it has heard. A notification of this run goes by its number, which is its index among those that
/// were sent.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// The user whose device this is.
    pub user: u32,
    /// The time since which the device must get everything that is sent.
    pub since: Option<Instant>,
    /// The ids of the user's own notifications that the device shows, in order. Those of earlier runs are among them.
    pub ids: Vec<String>,
    /// The count of unread notifications in the last event that had one.
    pub unread: u64,
    /// The notifications of this run in the order in which they came, those of the topic too. Each reset begins another
    /// list.
    pub heard: Vec<Vec<u32>>,
    /// The number of resets before each notification came last.
    pub(super) known: HashMap<u32, usize>,
    /// Notifications of this run that came again without a reset between.
    pub duplicates: u64,
    /// The reasons of all `reset` events.
    pub resets: Vec<String>,
    /// The states of all `status` events.
    pub statuses: Vec<String>,
    /// The last event id.
    pub last_id: String,
}

/// A notification of this run, as a device heard it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The number of the notification.
    pub number: u32,
    /// The id of the notification.
    pub id: String,
    /// Whether it was sent to the user, and not to the topic.
    pub own: bool,
    /// Whether the device had it before.
    pub times: Times,
}

/// Whether a device had a notification before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The notification is new.
    Once,
    /// The device had it before the last reset, and has it again.
    Anew,
    /// The device has it already: it is a duplicate.
    Again,
}

impl Device {
    /// Makes a device of a user that has heard nothing.
    pub fn new(user: u32) -> Self {
        Self { user, heard: vec![Vec::new()], ..Self::default() }
    }

    /// Takes an event in. Returns the notification that it brings, if that is of the run with this name.
    ///
    /// # Errors
    /// If the data of the event is not what its name promises.
    pub fn hear(&mut self, event: &Event, run: &str) -> anyhow::Result<Option<Heard>> {
        let data: Value =
            serde_json::from_str(&event.data).with_context(|| format!("{}: {}", event.event, event.data))?;
        let mut heard = None;
        match event.event.as_str() {
            "connected" => self.unread = data["unread"].as_u64().context("a count of unread is missing")?,
            "notification" => heard = self.take(&data, run)?,
            "read" | "deleted" => {
                self.unread = data["unread"].as_u64().context("a count of unread is missing")?;
                let gone = data["ids"].as_array().context("ids are missing")?;
                if event.event == "deleted" {
                    self.ids.retain(|id| !gone.iter().any(|gone| gone == id.as_str()));
                }
            }
            "reset" => {
                self.ids.clear();
                self.heard.push(Vec::new());
                self.resets.push(data["reason"].as_str().unwrap_or_default().to_owned());
            }
            "status" => self.statuses.push(data["state"].as_str().unwrap_or_default().to_owned()),
            // The token expired. The next connection has another one.
            "end" => {}
            other => anyhow::bail!("an unknown event {other}"),
        }
        if !event.id.is_empty() {
            // A device that has no id yet comes back as a new one, and hears only what is sent then.
            self.since.get_or_insert_with(Instant::now);
            self.last_id.clone_from(&event.id);
        }
        Ok(heard)
    }

    fn take(&mut self, data: &Value, run: &str) -> anyhow::Result<Option<Heard>> {
        let id = data["id"].as_str().context("a notification without an id")?;
        let own = data["topic"].is_null();
        if own {
            self.unread = data["unread"].as_u64().context("a count of unread is missing")?;
            self.ids.push(id.to_owned());
        }
        if data["data"]["run"] != run {
            return Ok(None);
        }
        let number = data["data"]["number"].as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.context("a notification without its number")?;
        let resets = self.resets.len();
        let times = match self.known.insert(number, resets) {
            None => Times::Once,
            Some(before) if before < resets => Times::Anew,
            Some(_) => Times::Again,
        };
        self.duplicates += u64::from(times == Times::Again);
        if let Some(heard) = self.heard.last_mut() {
            heard.push(number);
        }
        Ok(Some(Heard { number, id: id.to_owned(), own, times }))
    }

    /// Whether the device ever heard a notification of this run.
    pub fn has(&self, number: u32) -> bool {
        self.known.contains_key(&number)
    }
}
