//! The map at one step, as one document.

use std::borrow::Cow;
use std::io::{self, Write};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::compress::{MIN_COMPRESSED_BYTES, gzip_writer};
use crate::map::area::Area;
use crate::map::copies::Copies;
use crate::map::entry::Entry;
use crate::map::view::MapView;

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

/// A copy's format and coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) format: Format,
    /// Compressed, unless it is small.
    pub(crate) gzip: bool,
}

impl Form {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// Returns the number of the form, from 0 up to [`Form::COUNT`].
    pub(crate) fn index(self) -> usize {
        self.format as usize * 2 + usize::from(self.gzip)
    }
}

/// A copy as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct MapCopy {
    pub(crate) bytes: Bytes,
    /// Whether the bytes are compressed by gzip.
    pub(crate) gzip: bool,
}

/// What a document has besides its id and its fixes, at most.
const DOCUMENT_BYTES: usize = 128;
/// What a feature has besides its fix, about.
const FEATURE_BYTES: usize = 140;

/// All that is on the map, or in an area of it, the oldest fixes first; `None` if there are as many copies as
/// there may be.
pub(crate) fn encode(
    view: &MapView,
    id: &str,
    area: Option<Area>,
    form: Form,
    copies: &Copies,
) -> Option<MapCopy> {
    let mut fixes: Vec<&Entry> = area.map_or_else(|| view.alive().collect(), |area| view.alive_in(area));
    let more = if form.format == Format::GeoJson { FEATURE_BYTES } else { 1 };
    let text_bytes =
        DOCUMENT_BYTES + id.len() + fixes.iter().map(|entry| entry.json.len() + more).sum::<usize>();
    let id = area.map_or_else(|| id.to_owned(), |area| format!("{id}.{area}"));
    let gzip = form.gzip && text_bytes >= MIN_COMPRESSED_BYTES;
    let part = if area.is_some() { "area" } else { "whole" };
    let bytes = copies.acquire(part, text_bytes, || {
        fixes.sort_by_key(|entry| entry.timestamp_ms);
        let written = if gzip {
            let mut coder = gzip_writer();
            write(&mut coder, &id, &fixes, form.format).and_then(|()| coder.finish())
        } else {
            let mut text = Vec::with_capacity(text_bytes);
            write(&mut text, &id, &fixes, form.format).map(|()| text)
        };
        let mut bytes = written.expect("memory takes what is written");
        bytes.shrink_to_fit();
        bytes
    })?;
    Some(MapCopy { bytes, gzip })
}

fn write(to: &mut impl Write, id: &str, fixes: &[&Entry], format: Format) -> io::Result<()> {
    match format {
        Format::Json => write!(to, r#"{{"id":"{id}","locations":["#)?,
        Format::GeoJson => write!(to, r#"{{"type":"FeatureCollection","cursor":"{id}","features":["#)?,
    }
    let mut is_first = true;
    for entry in fixes {
        let feature = match format {
            Format::Json => Cow::from(&*entry.json),
            Format::GeoJson => match feature(&entry.json) {
                Some(feature) => feature.into(),
                None => continue,
            },
        };
        if !std::mem::take(&mut is_first) {
            to.write_all(b",")?;
        }
        to.write_all(feature.as_bytes())?;
    }
    to.write_all(b"]}")
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
