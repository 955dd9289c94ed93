//! Objects: which fields they have, and how their values are read.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::error::MAX_QUOTED_BYTES;
use super::scalar::{Place, Scalar, ScalarSeed, wrong};

/// An object with known fields.
pub trait Object<'de>: Default {
    /// The names of the fields, at most 32.
    const FIELDS: &'static [&'static str];
    /// The prefix of the field names in messages, such as `to.`.
    const PATH: &'static str = "";
    /// Whether fields with unknown names are skipped. Otherwise they are an error.
    const SKIPS_OTHERS: bool = false;

    /// Reads one field into the object. It is called at most once for each of [`Object::FIELDS`], and must read the
    /// value.
    ///
    /// # Errors
    /// Returns an error if the value has the wrong type.
    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error>;
}
/// A field of an object whose value has not been read yet.
pub struct Field<'a, A> {
    /// The name, one of [`Object::FIELDS`].
    pub name: &'static str,
    place: Place,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> Field<'_, A> {
    /// Reads a string or a number; returns `None` for null.
    ///
    /// # Errors
    /// Returns an error if the value has another type.
    pub fn scalar<T: Scalar<'de>>(self) -> Result<Option<T>, A::Error> {
        self.map.next_value_seed(ScalarSeed(self.place, PhantomData))
    }

    /// Reads an array of strings or numbers; returns `None` for null.
    ///
    /// # Errors
    /// Returns an error if the value or one of its elements has another type.
    pub fn list<T: Scalar<'de>>(self) -> Result<Option<Vec<T>>, A::Error> {
        self.map.next_value_seed(ListSeed(self.place, PhantomData))
    }

    /// Reads an object; returns `None` for null.
    ///
    /// # Errors
    /// Returns an error if the value or one of its fields has another type.
    pub fn object<T: Object<'de>>(self) -> Result<Option<T>, A::Error> {
        self.map.next_value_seed(ObjectSeed(Some(self.place), PhantomData))
    }

    /// Returns any JSON value exactly as it stands in the text, or `None` for null.
    ///
    /// # Errors
    /// Returns an error if the value is not JSON.
    pub fn raw(self) -> Result<Option<&'de RawValue>, A::Error> {
        self.map.next_value()
    }
}
/// Names the kind of a value that a visitor of arrays or objects refuses.
fn kind(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "a string",
    }
}

/// Implements the visits of all scalars for a visitor of arrays or objects: null is absent, the others are refused.
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

/// Reads an array of scalars.
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

/// Reads an object. Its place is that of the field, or `None` where the object is the whole text.
pub(super) struct ObjectSeed<T>(pub(super) Option<Place>, pub(super) PhantomData<T>);

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

/// Reads a name into the index of the field, or `None` if the field is skipped.
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
