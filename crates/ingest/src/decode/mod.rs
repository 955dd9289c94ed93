//! One record at a time: a value of Kafka becomes what a sink stores. Decoding does no I/O.
//!
//! There is one [`Decoder`] for each kind of route: [`location`], [`notification`] and [`event`].

pub(crate) mod event;
pub(crate) mod location;
pub(crate) mod notification;

#[cfg(test)]
pub(crate) mod fixtures;

use crate::record::RawRecord;

/// Turns records into what a sink stores.
pub(crate) trait Decoder: Send + Sync {
    /// What a sink stores of one record.
    type Part: Send;

    /// Decodes one record at `now_ms`, Redis's time in milliseconds since 1970.
    ///
    /// # Errors
    /// Why the record is not valid.
    fn decode(&self, record: RawRecord<'_>, now_ms: i64) -> Result<Decoded<Self::Part>, Rejection>;
}

/// What became of a valid record.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoded<P> {
    /// A sink stores this.
    Part(P),
    /// The record is too old to be shown, and is left out.
    Stale,
}

/// Why a record is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// One stable word for each kind of mistake. It is a label of metrics and a header of the rejected record.
    pub(crate) reason: &'static str,
    /// The whole explanation.
    pub(crate) error: String,
}

impl From<tutti_model::location::Invalid> for Rejection {
    fn from(invalid: tutti_model::location::Invalid) -> Self {
        Self { reason: invalid.reason(), error: invalid.to_string() }
    }
}

impl From<tutti_model::notification::Invalid> for Rejection {
    fn from(invalid: tutti_model::notification::Invalid) -> Self {
        Self { reason: invalid.reason(), error: invalid.to_string() }
    }
}
