//! Checks JSON that is passed on as it stands.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Error, MAX_QUOTED_BYTES};

/// The number of names of an object that are compared one by one; further names go into a set.
pub(super) const FEW_NAMES: usize = 8;

/// Checks that every receiver reads a JSON text alike: no object has a name twice, the text is Unicode, and all
/// numbers are finite as doubles.
///
/// # Errors
/// Returns what is wrong with the text.
pub fn check_any(text: &str) -> Result<(), Error> {
    Ok(serde_json::from_str::<Any>(text).map(drop)?)
}

/// A name of an object; it borrows from the text unless it contains escapes.
struct AnyName<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for AnyName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNameVisitor;
        impl<'de> Visitor<'de> for AnyNameVisitor {
            type Value = AnyName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(AnyName(Cow::Borrowed(name)))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(AnyName(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(AnyNameVisitor)
    }
}

/// Any JSON value; it visits the value and keeps nothing.
struct Any;

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        // Most objects have few names, for which a set costs more than it saves.
        let (mut first, mut others) = (Vec::with_capacity(FEW_NAMES), HashSet::new());
        while let Some(AnyName(name)) = map.next_key()? {
            if first.contains(&name) || others.contains(&name) {
                let quoted = &name[..name.floor_char_boundary(MAX_QUOTED_BYTES)];
                return Err(de::Error::custom(format_args!("`{quoted}` stands twice")));
            }
            if first.len() < FEW_NAMES {
                first.push(name);
            } else {
                others.insert(name);
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }
}
