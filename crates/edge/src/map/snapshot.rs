//! Documents with the map, or an area of it, at one step.

use std::borrow::Cow;
use std::io::{self, Write};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::compress::{MIN_COMPRESSED_BYTES, gzip_writer};
use crate::map::area::Area;
use crate::map::copy_bytes::CopyBytes;
use crate::map::entry::Entry;
use crate::map::view::MapView;

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The edge's own format: an id and a list of fixes.
    Json,
    /// A feature collection of RFC 7946.
    GeoJson,
}

impl Format {
    /// Returns the media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GeoJson => "application/geo+json",
        }
    }
}

/// Format and coding of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) format: Format,
    /// Whether the copy is compressed. Small copies never are.
    pub(crate) gzip: bool,
}

impl Form {
    /// Number of forms.
    pub(crate) const COUNT: usize = 4;

    /// Returns the number of the form, from 0 and less than [`Form::COUNT`].
    pub(crate) fn index(self) -> usize {
        self.format as usize * 2 + usize::from(self.gzip)
    }
}

/// A document as it is sent. Clones share the bytes.
#[derive(Clone, Debug)]
pub(crate) struct MapCopy {
    pub(crate) bytes: Bytes,
    /// Whether the bytes are compressed with gzip.
    pub(crate) gzip: bool,
}

/// Maximum bytes of a document other than the id and the fixes.
const DOCUMENT_BYTES: usize = 128;
/// Approximate bytes of a feature other than the fix.
const FEATURE_BYTES: usize = 140;

/// Encodes all fixes on the map, or in an area of it, oldest first. Returns `None` if the copies that are held leave
/// no room for another.
pub(crate) fn encode(
    view: &MapView,
    id: &str,
    area: Option<Area>,
    form: Form,
    copies: &CopyBytes,
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

/// Writes a document to `to`.
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

/// The members of a fix that a feature repeats, as they are written there.
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

/// Returns a fix as a GeoJSON feature, or `None` if the fix is not valid.
fn feature(fix: &str) -> Option<String> {
    let Place { media_id, latitude, longitude } = serde_json::from_str(fix).ok()?;
    Some(format!(
        r#"{{"type":"Feature","id":{media_id},"geometry":{{"type":"Point","coordinates":[{longitude},{latitude}]}},"properties":{fix}}}"#
    ))
}
