//! The map at one step, as one document.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::area::Area;
use crate::entry::Entry;
use crate::view::MapView;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// RFC 7946.
    GeoJson,
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GeoJson => "application/geo+json",
        }
    }
}

/// Bytes of the copies that clients may be taking at the same time, all together;
const MAX_BYTES: usize = 256 << 20;
/// and those of one address.
pub(crate) const MAX_BYTES_OF_AN_ADDRESS: usize = MAX_BYTES / 4;

/// What a feature has besides its fix, about.
const FEATURE_BYTES: usize = 140;

/// Who asks for a copy waits so long while others are made.
const WAIT: Duration = Duration::from_secs(5);

/// Makes copies of the map, one after the other, away from the threads that write streams; and counts the bytes
/// of each for as long as somebody holds it: a slow client must not make the edge hold more and more of them.
/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Copies {
    bytes: Arc<Semaphore>,
    making: Arc<Semaphore>,
}

/// A copy that is counted.
struct Counted {
    text: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Copies {
    pub(crate) fn new() -> Self {
        Self { bytes: Arc::new(Semaphore::new(MAX_BYTES)), making: Arc::new(Semaphore::new(1)) }
    }

    /// Makes one; `None` if there are as many as there may be.
    pub(crate) async fn make(
        &self,
        make: impl FnOnce(&Self) -> Option<Bytes> + Send + 'static,
    ) -> Option<Bytes> {
        let turn = timeout(WAIT, self.making.clone().acquire_owned()).await.ok()?;
        let copies = self.clone();
        let made = web::block(move || {
            // Also if who asked has gone meanwhile.
            let _turn = turn;
            make(&copies)
        });
        made.await.ok().flatten()
    }

    /// One more, of about so many bytes; `None` if there are as many as there may be: then it is not made.
    fn one_more(&self, bytes: usize, make: impl FnOnce() -> String) -> Option<Bytes> {
        // One that is larger than all may be is served where there is no other.
        let permit = self.bytes.clone().try_acquire_many_owned(bytes.min(MAX_BYTES) as u32).ok()?;
        Some(Bytes::from_owner(Counted { text: make(), _permit: permit }))
    }
}

/// All that is on the map, or in an area of it, the oldest fixes first; `None` if there are as many copies as
/// there may be.
pub(crate) fn encode(
    view: &MapView,
    id: &str,
    area: Option<Area>,
    format: Format,
    copies: &Copies,
) -> Option<Bytes> {
    let mut fixes: Vec<&Entry> = area.map_or_else(|| view.alive().collect(), |area| view.alive_in(area));
    let more = if format == Format::GeoJson { FEATURE_BYTES } else { 1 };
    let bytes = fixes.iter().map(|entry| entry.json.len() + more).sum();
    fixes.sort_by_key(|entry| entry.timestamp_ms);
    let id = area.map_or_else(|| id.to_owned(), |area| format!("{id}.{area}"));
    copies.one_more(bytes, || match format {
        Format::Json => {
            let all: Vec<&str> = fixes.iter().map(|entry| &*entry.json).collect();
            format!(r#"{{"id":"{id}","locations":[{}]}}"#, all.join(","))
        }
        Format::GeoJson => {
            let all: Vec<String> = fixes.iter().filter_map(|entry| feature(&entry.json)).collect();
            format!(r#"{{"type":"FeatureCollection","cursor":"{id}","features":[{}]}}"#, all.join(","))
        }
    })
}

/// What a feature needs of a fix, as it stands there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place<'a> {
    #[serde(borrow)]
    media_id: &'a RawValue,
    #[serde(borrow)]
    latitude: &'a RawValue,
    #[serde(borrow)]
    longitude: &'a RawValue,
}

fn feature(fix: &str) -> Option<String> {
    let Place { media_id, latitude, longitude } = serde_json::from_str(fix).ok()?;
    Some(format!(
        r#"{{"type":"Feature","id":{media_id},"geometry":{{"type":"Point","coordinates":[{longitude},{latitude}]}},"properties":{fix}}}"#
    ))
}
