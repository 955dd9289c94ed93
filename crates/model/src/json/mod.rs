//! Reads JSON objects that come from outside, all by the same rules:
//!
//! - The text is one object. An array is refused, even if its elements would fit the fields in order.
//! - A name occurs at most once.
//! - A field that is `null` counts as absent.
//! - A number without a fraction is an integer, however it is written: `1.0` is 1.
//! - A byte-order mark before the text is skipped.
//! - Messages name the field and use the words of JSON: "`speed` must be a number, is a string".
//!
//! A type implements [`Object`] and is read by [`read`]: `object.rs` visits the fields of an object, `scalar.rs` reads
//! their values. JSON that is passed on unread, such as `properties`, is checked by [`check_any`] and shortened by
//! [`compact`].

mod any;
mod compact;
mod error;
mod object;
mod scalar;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use serde::de::DeserializeSeed as _;

pub use any::check_any;
pub use compact::compact;
pub use error::Error;
pub use object::{Field, Object};
pub use scalar::{Name, Scalar, Token};

use object::ObjectSeed;

/// The UTF-8 byte-order mark, which some programs write before a text.
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads an object from a text.
///
/// # Errors
/// Returns what is wrong with the text.
pub fn read<'de, T: Object<'de>>(text: &'de [u8]) -> Result<T, Error> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.is_empty() {
        return Err(Error::NotJson("it is empty".to_owned()));
    }
    // Checking the whole text once is cheaper: serde_json would check each name and string by itself.
    let text = str::from_utf8(text).map_err(|e| Error::NotJson(e.to_string()))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object = ObjectSeed::<T>(None, PhantomData).deserialize(&mut deserializer)?;
    deserializer.end()?;
    object.ok_or_else(|| Error::WrongShape("it must be an object, is null".to_owned()))
}

/// Returns the value of a field that must be present.
///
/// # Errors
/// Returns an error that names the field if it is absent or null.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::WrongShape(format!("`{name}` is missing")))
}
