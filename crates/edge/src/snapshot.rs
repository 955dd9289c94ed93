//! The map at one step, as one document.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

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

/// All that is on the map, or in an area of it, the oldest fixes first.
pub(crate) fn encode(view: &MapView, id: &str, area: Option<Area>, format: Format) -> Bytes {
    let mut fixes: Vec<&Entry> = area.map_or_else(|| view.alive().collect(), |area| view.alive_in(area));
    fixes.sort_by_key(|entry| entry.timestamp_ms);
    let id = area.map_or_else(|| id.to_owned(), |area| format!("{id}.{area}"));
    match format {
        Format::Json => {
            let all: Vec<&str> = fixes.iter().map(|entry| &*entry.json).collect();
            format!(r#"{{"id":"{id}","locations":[{}]}}"#, all.join(",")).into()
        }
        Format::GeoJson => {
            let all: Vec<String> = fixes.iter().filter_map(|entry| feature(&entry.json)).collect();
            format!(r#"{{"type":"FeatureCollection","cursor":"{id}","features":[{}]}}"#, all.join(",")).into()
        }
    }
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
