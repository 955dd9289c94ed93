//! The JSON form of a position.

use serde::de::MapAccess;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::check::compact_properties;
use super::invalid::Invalid;
use crate::Fix;
use crate::json::{Field, Name, Object, required};

/// Returns the JSON object that browsers receive for a fix, on one line.
pub fn to_json(fix: &Fix) -> String {
    serde_json::to_string(&FixJson(fix)).expect("strings and finite numbers always serialise")
}

/// A fix as producers write it. Unknown fields are skipped.
#[derive(Default)]
pub(super) struct JsonFix<'a> {
    media_id: Option<Name>,
    timestamp: Option<i64>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    heading: Option<f64>,
    speed: Option<f64>,
    properties: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Object<'de> for JsonFix<'a> {
    const FIELDS: &'static [&'static str] =
        &["mediaId", "timestamp", "latitude", "longitude", "heading", "speed", "properties"];
    const SKIPS_OTHERS: bool = true;

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "mediaId" => self.media_id = field.scalar()?,
            "timestamp" => self.timestamp = field.scalar()?,
            "latitude" => self.latitude = field.scalar()?,
            "longitude" => self.longitude = field.scalar()?,
            "heading" => self.heading = field.scalar()?,
            "speed" => self.speed = field.scalar()?,
            "properties" => self.properties = field.raw()?,
            name => unreachable!("{name} is not in FIELDS"),
        }
        Ok(())
    }
}

impl JsonFix<'_> {
    /// Checks that the required fields are present.
    pub(super) fn into_fix(self) -> Result<Fix, Invalid> {
        let properties = self.properties.map(|p| compact_properties(p.get())).transpose()?;
        Ok(Fix {
            media_id: required(self.media_id, "mediaId")?.0,
            timestamp_ms: required(self.timestamp, "timestamp")?,
            latitude: required(self.latitude, "latitude")?,
            longitude: required(self.longitude, "longitude")?,
            heading: self.heading,
            speed: self.speed,
            properties: properties.unwrap_or_default(),
        })
    }
}

/// A fix as browsers receive it.
struct FixJson<'a>(&'a Fix);

impl Serialize for FixJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fix = self.0;
        let mut s = serializer.serialize_struct("Fix", 7)?;
        s.serialize_field("mediaId", &fix.media_id)?;
        s.serialize_field("timestamp", &fix.timestamp_ms)?;
        s.serialize_field("latitude", &fix.latitude)?;
        s.serialize_field("longitude", &fix.longitude)?;
        if let Some(heading) = fix.heading {
            s.serialize_field("heading", &heading)?;
        }
        if let Some(speed) = fix.speed {
            s.serialize_field("speed", &speed)?;
        }
        // A writer of another version may have put other text there; only a JSON text without line feeds is shown.
        if let Ok(properties) = serde_json::from_str::<&RawValue>(&fix.properties)
            && !fix.properties.contains(['\n', '\r'])
        {
            s.serialize_field("properties", properties)?;
        }
        s.end()
    }
}
