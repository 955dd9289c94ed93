//! Values without parts: strings, numbers and booleans.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The number from which on not every integer is a double.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// The place of a value: the path of its object, and its name.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) &'static str, pub(super) &'static str);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}{}`", self.0, self.1)
    }
}

/// A type that can be read from a string or a number.
pub trait Scalar<'de>: Sized {
    /// The expected kind of value, in the words of JSON, for messages.
    const EXPECTED: &'static str;

    /// Converts a token; returns `None` if it is of another kind. A number out of range becomes the nearest number in
    /// range, so that the check of the range reports the range.
    fn of(token: &Token<'de>) -> Option<Self>;
}

/// A JSON value that has no parts and is not null.
#[derive(Debug)]
pub enum Token<'de> {
    /// `true` or `false`.
    Bool(bool),
    /// An integer that is not negative.
    Positive(u64),
    /// An integer below 0.
    Negative(i64),
    /// A number with a fraction or an exponent, or with more than 64 bits.
    Float(f64),
    /// A string.
    Text(Cow<'de, str>),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Positive(number) => number.fmt(f),
            Self::Negative(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            // The text may be long, and it may be a secret.
            Self::Text(_) => f.write_str("a string"),
        }
    }
}

impl Scalar<'_> for f64 {
    const EXPECTED: &'static str = "a number";

    fn of(token: &Token<'_>) -> Option<Self> {
        match token {
            Token::Positive(number) => Some(*number as Self),
            Token::Negative(number) => Some(*number as Self),
            Token::Float(number) => Some(*number),
            Token::Bool(_) | Token::Text(_) => None,
        }
    }
}

impl Scalar<'_> for i64 {
    const EXPECTED: &'static str = "an integer";

    fn of(token: &Token<'_>) -> Option<Self> {
        match token {
            Token::Positive(number) => Some(Self::try_from(*number).unwrap_or(Self::MAX)),
            Token::Negative(number) => Some(*number),
            // A cast from a float saturates.
            Token::Float(number) if number.fract() == 0.0 => Some(*number as Self),
            _ => None,
        }
    }
}

impl Scalar<'_> for u64 {
    const EXPECTED: &'static str = "an integer from 0 up";

    fn of(token: &Token<'_>) -> Option<Self> {
        match token {
            Token::Positive(number) => Some(*number),
            // A cast from a float saturates.
            Token::Float(number) if number.fract() == 0.0 && *number >= 0.0 => Some(*number as Self),
            _ => None,
        }
    }
}

impl Scalar<'_> for String {
    const EXPECTED: &'static str = "a string";

    fn of(token: &Token<'_>) -> Option<Self> {
        match token {
            Token::Text(text) => Some(text.as_ref().to_owned()),
            _ => None,
        }
    }
}

/// A name that is written as a string or as an integer. The integer 7 and the string "7" are the same name.
#[derive(Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl Scalar<'_> for Name {
    const EXPECTED: &'static str = "a string or an integer of 64 bits";

    fn of(token: &Token<'_>) -> Option<Self> {
        Some(Self(match token {
            Token::Text(text) => text.as_ref().to_owned(),
            Token::Positive(number) => number.to_string(),
            Token::Negative(number) => number.to_string(),
            // Two long numbers must not become the same name.
            Token::Float(number) if number.fract() == 0.0 && number.abs() < EXACT_BELOW => {
                (*number as i64).to_string()
            }
            Token::Float(_) | Token::Bool(_) => return None,
        }))
    }
}

/// Returns the error "`what` must be `expected`, is `is`".
pub(super) fn wrong<E: de::Error>(what: impl fmt::Display, expected: &str, is: impl fmt::Display) -> E {
    E::custom(format_args!("{what} must be {expected}, is {is}"))
}

/// Reads a scalar.
pub(super) struct ScalarSeed<T>(pub(super) Place, pub(super) PhantomData<T>);

impl<'de, T: Scalar<'de>> ScalarSeed<T> {
    fn take<E: de::Error>(self, token: &Token<'de>) -> Result<Option<T>, E> {
        match T::of(token) {
            None => Err(wrong(self.0, T::EXPECTED, token)),
            taken => Ok(taken),
        }
    }
}

impl<'de, T: Scalar<'de>> DeserializeSeed<'de> for ScalarSeed<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Scalar<'de>> Visitor<'de> for ScalarSeed<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.take(&Token::Bool(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.take(&Token::Positive(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.take(&Token::Negative(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.take(&Token::Float(value))
    }
    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
        self.take(&Token::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.take(&Token::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(wrong(self.0, T::EXPECTED, "an array"))
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(wrong(self.0, T::EXPECTED, "an object"))
    }
}
