//! A viewer of the map: what a browser would hold, and what it would notice.

use std::collections::HashMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::now_ms;
use crate::sse::Event;

/// What a viewer of the map holds and has noticed.
#[derive(Clone, Debug, Default)]
pub struct Viewer {
    /// The newest fix of each device, as JSON.
    pub devices: HashMap<String, Value>,
    /// The last event id.
    pub last_id: String,
    /// The ids that came with events, in order.
    pub ids: Vec<String>,
    /// The reasons of all `reset` events.
    pub resets: Vec<String>,
    /// The states of all `status` events: `live` or `stale`.
    pub statuses: Vec<String>,
    /// The reason of an `end` event.
    pub end: Option<String>,
    /// The number of fixes that came.
    pub fixes: u64,
    /// The number of removals that came.
    pub removals: u64,
    /// Fixes that were older than the one that the viewer held. There must be none.
    pub steps_back: u64,
    /// Fixes with the timestamp of the one that the viewer held. Only a replay may bring such a fix.
    pub repeats: u64,
    /// The age of each fix when it came, in milliseconds, since a caller last took these.
    pub delays_ms: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamped {
    media_id: String,
    timestamp: i64,
}

impl Viewer {
    /// Takes an event in.
    ///
    /// # Errors
    /// If the data of the event is not what its name promises.
    pub fn hear(&mut self, event: &Event) -> anyhow::Result<()> {
        let data = || format!("the data of a {} event: {}", event.event, event.data);
        match event.event.as_str() {
            "liveMapLocation" => {
                let now = now_ms();
                for fix in serde_json::from_str::<Vec<Value>>(&event.data).with_context(data)? {
                    let Stamped { media_id, timestamp } = Stamped::deserialize(&fix).with_context(data)?;
                    self.fixes += 1;
                    self.delays_ms.push(now - timestamp);
                    let before = self.devices.insert(media_id, fix);
                    let before = before.and_then(|b| b["timestamp"].as_i64());
                    self.steps_back += u64::from(before.is_some_and(|b| b > timestamp));
                    self.repeats += u64::from(before == Some(timestamp));
                }
            }
            "liveMapRemoved" => {
                for removed in serde_json::from_str::<Vec<Stamped>>(&event.data).with_context(data)? {
                    self.removals += 1;
                    self.devices.remove(&removed.media_id);
                }
            }
            "reset" => {
                self.devices.clear();
                self.resets.push(word(&event.data, "reason").with_context(data)?);
            }
            "status" => self.statuses.push(word(&event.data, "state").with_context(data)?),
            "end" => self.end = Some(word(&event.data, "reason").with_context(data)?),
            other => anyhow::bail!("an event of an unknown name: {other}"),
        }
        if !event.id.is_empty() && event.id != self.last_id {
            self.last_id.clone_from(&event.id);
            // The id "0" is not a position. It means that a snapshot has begun and not ended.
            self.ids.extend((event.id != "0").then(|| event.id.clone()));
        }
        Ok(())
    }
}

fn word(data: &str, name: &str) -> anyhow::Result<String> {
    let value: Value = serde_json::from_str(data)?;
    Ok(value[name].as_str().context("a word is missing")?.to_owned())
}

/// Returns the value below which this share (0 to 1) of the values lies. Sorts the values.
pub fn quantile(values: &mut [i64], share: f64) -> Option<i64> {
    values.sort_unstable();
    values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1))).copied()
}
