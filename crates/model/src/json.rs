//! Reads JSON objects that come from outside, all by the same rules:
//!
//! - The text is one object. An array is refused, also where its elements would fit the fields in order.
//! - A name stands at most once.
//! - A field that is `null` is absent.
//! - A number without a fraction is an integer, however it is written: `1.0` is 1.
//! - A byte-order mark before the text is skipped.
//! - Messages name the field and speak of JSON: "`speed` must be a number, is a string".

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;

/// The UTF-8 byte-order mark, which some programs write before a text.
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A message about a text is at most this long, in bytes: it goes to headers, logs and answers.
const MAX_MESSAGE_BYTES: usize = 200;
/// A name that is not known is quoted up to this length, in bytes.
const MAX_QUOTED_BYTES: usize = 64;
/// An object with more names than these has a set for the others.
const FEW_NAMES: usize = 8;
/// From here on, not every integer is a double.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Why a text is not the object that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("{0}")]
    NotJson(String),
    /// The text is JSON, but not an object with the right fields and types.
    #[error("{0}")]
    WrongShape(String),
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        let mut text = error.to_string();
        if error.classify() != serde_json::error::Category::Data {
            text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
            return Self::NotJson(text);
        }
        // The field's name is the place already.
        let place = format!(" at line {} column {}", error.line(), error.column());
        text.truncate(text.strip_suffix(&place).unwrap_or(&text).len());
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        Self::WrongShape(text)
    }
}

/// An object with known fields.
pub trait Object<'de>: Default {
    /// The names of its fields, at most 32.
    const FIELDS: &'static [&'static str];
    /// What stands before the names of its fields in messages, as `to.`.
    const PATH: &'static str = "";
    /// Whether fields of other names are skipped; else they are a mistake.
    const SKIPS_OTHERS: bool = false;

    /// Takes one field in. It is called at most once for each of [`Object::FIELDS`], and must read the field.
    ///
    /// # Errors
    /// If the field has another type.
    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error>;
}

/// Reads an object from a text.
///
/// # Errors
/// What is wrong with the text.
pub fn read<'de, T: Object<'de>>(text: &'de [u8]) -> Result<T, Error> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.is_empty() {
        return Err(Error::NotJson("it is empty".to_owned()));
    }
    // Once for all of it: serde_json would do so for each name and string alone.
    let text = str::from_utf8(text).map_err(|e| Error::NotJson(e.to_string()))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object = ObjectSeed::<T>(None, PhantomData).deserialize(&mut deserializer)?;
    deserializer.end()?;
    object.ok_or_else(|| Error::WrongShape("it must be an object, is null".to_owned()))
}

/// The value of a field that must be there.
///
/// # Errors
/// If the field is absent or null.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::WrongShape(format!("`{name}` is missing")))
}

/// Checks that a text is JSON that every receiver reads alike: no object has a name twice, text is Unicode, and
/// numbers are finite as doubles.
///
/// # Errors
/// What is wrong with the text.
pub fn check_any(text: &str) -> Result<(), Error> {
    Ok(serde_json::from_str::<Any>(text).map(drop)?)
}

/// A JSON text without the blanks between its parts, and how deep it is nested: a line feed would end the
/// `data:` line of an event. Letters that are written as numbers (`\u0416`), as some writers do with all that is not
/// ASCII, become themselves, which is a third of the bytes.
pub fn compact(json: &str) -> (String, usize) {
    let (mut text, mut in_string) = (String::with_capacity(json.len()), false);
    let (mut depth, mut deepest) = (0usize, 0);
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        if in_string && c == '\\' {
            if let Some((letter, length)) = letter_of(rest) {
                text.push(letter);
                rest = &rest[length..];
                continue;
            }
            // A quotation mark behind it ends nothing.
            length += rest[1..].chars().next().map_or(0, char::len_utf8);
        } else if in_string {
            in_string = c != '"';
        } else if c.is_ascii_whitespace() {
            rest = &rest[length..];
            continue;
        } else {
            in_string = c == '"';
            match c {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        text.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    (text, deepest)
}

/// The letter that an escape at the beginning of a text stands for, and how long the escape is; none where it is
/// another escape, or the letter cannot stand in a string by itself.
fn letter_of(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let first = unit(0)?;
    let (letter, length) = match char::from_u32(first.into()) {
        Some(letter) => (letter, 6),
        None => (char::decode_utf16([first, unit(6)?]).next()?.ok()?, 12),
    };
    (!letter.is_control() && !['"', '\\'].contains(&letter)).then_some((letter, length))
}

/// A field of an object, whose value is still to be read.
pub struct Field<'a, A> {
    /// One of [`Object::FIELDS`].
    pub name: &'static str,
    place: Place,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> Field<'_, A> {
    /// A string or number; `None` if it is null.
    ///
    /// # Errors
    /// If it has another type.
    pub fn scalar<T: Scalar<'de>>(self) -> Result<Option<T>, A::Error> {
        self.map.next_value_seed(ScalarSeed(self.place, PhantomData))
    }

    /// An array of strings or numbers; `None` if it is null.
    ///
    /// # Errors
    /// If it, or one of its elements, has another type.
    pub fn list<T: Scalar<'de>>(self) -> Result<Option<Vec<T>>, A::Error> {
        self.map.next_value_seed(ListSeed(self.place, PhantomData))
    }

    /// An object; `None` if it is null.
    ///
    /// # Errors
    /// If it has another type, or one of its fields has.
    pub fn object<T: Object<'de>>(self) -> Result<Option<T>, A::Error> {
        self.map.next_value_seed(ObjectSeed(Some(self.place), PhantomData))
    }

    /// Any JSON, as it stands in the text; `None` if it is null.
    ///
    /// # Errors
    /// If it is no JSON.
    pub fn raw(self) -> Result<Option<&'de RawValue>, A::Error> {
        self.map.next_value()
    }
}

/// Where a value stands: the path of its object, and its name.
#[derive(Clone, Copy)]
struct Place(&'static str, &'static str);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}{}`", self.0, self.1)
    }
}

/// What can be read from a string or a number.
pub trait Scalar<'de>: Sized {
    /// The kind of value that is expected, in JSON's words, for messages.
    const EXPECTED: &'static str;

    /// Makes one, where the token is such a value. A number out of range becomes the nearest in range: what
    /// checks the range then speaks of the range.
    fn of(token: &Token<'de>) -> Option<Self>;
}

/// A JSON value that has no parts, and is not null.
#[derive(Debug)]
pub enum Token<'de> {
    /// `true` or `false`.
    Bool(bool),
    /// An integer from 0 up.
    Positive(u64),
    /// An integer below 0.
    Negative(i64),
    /// A number with a fraction or an exponent, or of more than 64 bits.
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
            // It may be long, and it may be a secret.
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
            // The cast saturates.
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
            // The cast saturates.
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

/// A name that is written as a string or as an integer; both are one text from here on.
#[derive(Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl Scalar<'_> for Name {
    const EXPECTED: &'static str = "a string or an integer of 64 bits";

    fn of(token: &Token<'_>) -> Option<Self> {
        Some(Self(match token {
            Token::Text(text) => text.as_ref().to_owned(),
            Token::Positive(number) => number.to_string(),
            Token::Negative(number) => number.to_string(),
            // Two long numbers must not become one name.
            Token::Float(number) if number.fract() == 0.0 && number.abs() < EXACT_BELOW => {
                (*number as i64).to_string()
            }
            Token::Float(_) | Token::Bool(_) => return None,
        }))
    }
}

fn wrong<E: de::Error>(what: impl fmt::Display, expected: &str, is: impl fmt::Display) -> E {
    E::custom(format_args!("{what} must be {expected}, is {is}"))
}

struct ScalarSeed<T>(Place, PhantomData<T>);

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

/// What a visitor got that takes only parts.
fn kind(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "a string",
    }
}

/// The visits of a visitor that takes none of them.
macro_rules! refuses_scalars {
    ($refuse:ident) => {
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
            Err(self.$refuse(Unexpected::Bool(value)))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
            Err(self.$refuse(Unexpected::Unsigned(value)))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            Err(self.$refuse(Unexpected::Signed(value)))
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
            Err(self.$refuse(Unexpected::Float(value)))
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
            Err(self.$refuse(Unexpected::Str(value)))
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    };
}

struct ListSeed<T>(Place, PhantomData<T>);

impl<T> ListSeed<T> {
    fn refuse<E: de::Error>(self, is: Unexpected<'_>) -> E {
        wrong(self.0, "an array", kind(is))
    }
}

impl<'de, T: Scalar<'de>> DeserializeSeed<'de> for ListSeed<T> {
    type Value = Option<Vec<T>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Scalar<'de>> Visitor<'de> for ListSeed<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    refuses_scalars!(refuse);
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(ScalarSeed(self.0, PhantomData))? {
            list.push(element.ok_or_else(|| wrong(self.0, "an array without null", "one with it"))?);
        }
        Ok(Some(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.refuse(Unexpected::Map))
    }
}

/// An object that is a field, or, without a place, the whole text.
struct ObjectSeed<T>(Option<Place>, PhantomData<T>);

impl<T> ObjectSeed<T> {
    fn refuse<E: de::Error>(self, is: Unexpected<'_>) -> E {
        match (self.0, is) {
            (Some(place), is) => wrong(place, "an object", kind(is)),
            (None, Unexpected::Seq) => E::custom(
                "it must be one object, is an array: send each of its elements as a record or request of its own",
            ),
            (None, is) => wrong("it", "an object", kind(is)),
        }
    }
}

impl<'de, T: Object<'de>> DeserializeSeed<'de> for ObjectSeed<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for ObjectSeed<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    refuses_scalars!(refuse);
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.refuse(Unexpected::Seq))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = T::default();
        let mut seen = 0u32;
        while let Some(at) = map.next_key_seed(NameSeed::<T>(PhantomData))? {
            let Some(at) = at else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let name = T::FIELDS[at];
            let place = Place(T::PATH, name);
            if seen & (1 << at) != 0 {
                return Err(de::Error::custom(format_args!("{place} stands twice")));
            }
            seen |= 1 << at;
            object.take(Field { name, place, map: &mut map })?;
        }
        Ok(Some(object))
    }
}

/// The index of a field by its name; `None` for one that is skipped.
struct NameSeed<T>(PhantomData<T>);

impl<'de, T: Object<'de>> DeserializeSeed<'de> for NameSeed<T> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for NameSeed<T> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        match T::FIELDS.iter().position(|field| *field == name) {
            None if !T::SKIPS_OTHERS => {
                let (quoted, fields) =
                    (&name[..name.floor_char_boundary(MAX_QUOTED_BYTES)], T::FIELDS.join(", "));
                Err(E::custom(format_args!("there is no field `{}{quoted}`, but: {fields}", T::PATH)))
            }
            at => Ok(at),
        }
    }
}

/// A name in any object, borrowed from the text where that has no escapes in it.
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

/// Any JSON, for [`check_any`].
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
        // Most objects have a few names, and for these a set costs more than it saves.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq)]
    struct Outer {
        count: Option<u64>,
        at: Option<i64>,
        speed: Option<f64>,
        title: Option<String>,
        tags: Option<Vec<String>>,
        to: Option<Inner>,
        id: Option<Name>,
        data: Option<String>,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        topic: Option<String>,
    }

    impl<'de> Object<'de> for Outer {
        const FIELDS: &'static [&'static str] =
            &["count", "at", "speed", "title", "tags", "to", "id", "data"];

        fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
            match field.name {
                "count" => self.count = field.scalar()?,
                "at" => self.at = field.scalar()?,
                "speed" => self.speed = field.scalar()?,
                "title" => self.title = field.scalar()?,
                "tags" => self.tags = field.list()?,
                "to" => self.to = field.object()?,
                "id" => self.id = field.scalar()?,
                _ => self.data = field.raw()?.map(|raw| raw.get().to_owned()),
            }
            Ok(())
        }
    }

    impl<'de> Object<'de> for Inner {
        const FIELDS: &'static [&'static str] = &["topic"];
        const PATH: &'static str = "to.";

        fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
            self.topic = field.scalar()?;
            Ok(())
        }
    }

    fn outer(text: &str) -> Result<Outer, Error> {
        read(text.as_bytes())
    }

    #[test]
    fn compacting_keeps_what_a_text_says_and_writes_letters_as_themselves() {
        let cases = [
            (r#" { "a" : [ 1.50 , "x \" y" ] } "#, r#"{"a":[1.50,"x \" y"]}"#),
            (r#""\u0416\u0436 \u00e9""#, r#""Жж é""#),
            (r#""\ud83d\ude95 a\\u0416""#, r#""🚕 a\\u0416""#),
            (r#""\u0022 \u005c \u000a \u0085 \n""#, r#""\u0022 \u005c \u000a \u0085 \n""#),
            (r#""\ud83d \ude95 \u+041 \u04""#, r#""\ud83d \ude95 \u+041 \u04""#),
            ("\"\\", "\"\\"),
            ("\"\\é", "\"\\é"),
        ];
        for (text, wanted) in cases {
            assert_eq!(compact(text).0, wanted);
        }
        assert_eq!(compact("[[{}]]").1, 3);
    }

    #[test]
    fn a_field_that_is_null_is_absent() {
        let nulls = r#"{"count":null,"at":null,"speed":null,"title":null,"tags":null,"to":null,"id":null,"data":null}"#;
        assert_eq!(outer(nulls), Ok(Outer::default()));
        let inner = Outer { to: Some(Inner { topic: None }), ..Outer::default() };
        assert_eq!(outer(r#"{"to":{"topic":null}}"#), Ok(inner));
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer() {
        for text in ["7", "7.0", "7e0", "70e-1"] {
            let read =
                outer(&format!(r#"{{"count":{text},"at":{text},"speed":{text},"id":{text}}}"#)).unwrap();
            assert_eq!((read.count, read.at, read.speed), (Some(7), Some(7), Some(7.0)), "{text}");
            assert_eq!(read.id, Some(Name("7".to_owned())), "{text}");
        }
        assert_eq!(outer(r#"{"at":1796071271698.0}"#).unwrap().at, Some(1_796_071_271_698));
        // What checks the range says what the range is.
        assert_eq!(outer(r#"{"at":1e30,"count":1e30}"#).unwrap().at, Some(i64::MAX));
    }

    #[test]
    fn each_mistake_names_its_field_in_the_words_of_json() {
        for (text, message) in [
            (r#"{"speed":"1"}"#, "`speed` must be a number, is a string"),
            (r#"{"speed":true}"#, "`speed` must be a number, is true"),
            (r#"{"speed":[1]}"#, "`speed` must be a number, is an array"),
            (r#"{"at":1.5}"#, "`at` must be an integer, is 1.5"),
            (r#"{"count":-1}"#, "`count` must be an integer from 0 up, is -1"),
            (r#"{"title":7}"#, "`title` must be a string, is 7"),
            (r#"{"title":{}}"#, "`title` must be a string, is an object"),
            (r#"{"id":1e20}"#, "`id` must be a string or an integer of 64 bits, is 100000000000000000000"),
            (r#"{"tags":"a"}"#, "`tags` must be an array, is a string"),
            (r#"{"tags":[1]}"#, "`tags` must be a string, is 1"),
            (r#"{"tags":[null]}"#, "`tags` must be an array without null, is one with it"),
            (r#"{"to":["news"]}"#, "`to` must be an object, is an array"),
            (r#"{"to":7}"#, "`to` must be an object, is a number"),
            (r#"{"to":{"topic":7}}"#, "`to.topic` must be a string, is 7"),
            (r#"{"to":{"colour":7}}"#, "there is no field `to.colour`, but: topic"),
            (r#"{"at":1,"speed":1,"at":2}"#, "`at` stands twice"),
            (r#"{"to":null,"to":{}}"#, "`to` stands twice"),
            (r#"{"to":{"topic":"a","topic":"a"}}"#, "`to.topic` stands twice"),
            (
                r#"[{"at":1}]"#,
                "it must be one object, is an array: send each of its elements as a record or request of its own",
            ),
            ("7", "it must be an object, is a number"),
            ("null", "it must be an object, is null"),
        ] {
            assert_eq!(outer(text), Err(Error::WrongShape(message.to_owned())), "{text}");
        }
        for text in ["", "{", r#"{"at":1}{"#, r#"{"at":NaN}"#, r#"{"data":}"#] {
            assert!(matches!(outer(text), Err(Error::NotJson(_))), "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(outer("\u{feff}{\"at\":1}").unwrap().at, Some(1));
        assert!(outer("\u{feff}\u{feff}{\"at\":1}").is_err());
    }

    #[test]
    fn a_name_that_stands_twice_is_found_among_many() {
        let names = |count: usize| (0..count).map(|n| format!(r#""{n}":{n}"#)).collect::<Vec<_>>().join(",");
        for count in [1, FEW_NAMES, FEW_NAMES + 1, 1000] {
            let text = names(count);
            assert_eq!(check_any(&format!("{{{text}}}")), Ok(()));
            for twice in [0, count / 2, count - 1] {
                let error = check_any(&format!(r#"{{{text},"{twice}":0}}"#)).unwrap_err();
                assert_eq!(error.to_string(), format!("`{twice}` stands twice"));
            }
        }
    }

    #[test]
    fn no_receiver_reads_another_text_than_the_one_that_was_checked() {
        assert_eq!(check_any(r#"[{"a":1,"b":{"a":2}},"a",null,1.5]"#), Ok(()));
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#, r#""\ud800""#, "1e999", "[", "1 2"]
        {
            assert!(check_any(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(count: u64, at: i64, speed in -1e9..1e9, title in "(?s).{0,20}", tags in proptest::collection::vec(".{0,5}", 0..3)) {
            let text = serde_json::json!({"count": count, "at": at, "speed": speed, "title": title, "tags": tags}).to_string();
            let read = outer(&text).unwrap();
            prop_assert_eq!((read.count, read.at, read.title, read.tags), (Some(count), Some(at), Some(title), Some(tags)));
            // JSON's shortest form of any double may be off by one bit.
            let off: f64 = read.speed.unwrap() - speed;
            prop_assert!(off.abs() <= 1e-6);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<Outer>(&bytes);
        }

        #[test]
        fn no_json_makes_reading_panic(text in r#"\{"(at|count|speed|title|tags|to|id|data)":[\[\]{}",0-9.e-]{0,12}\}"#) {
            let _ = outer(&text);
            let _ = check_any(&text);
        }
    }
}
