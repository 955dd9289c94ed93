//! Records for tests.

use crate::record::{Headers, RawRecord};

/// The present, in milliseconds since 1970.
pub(crate) const NOW: i64 = 1_700_000_000_000;
/// No header.
pub(crate) const NONE: Header = ("", &[]);

/// The name and the value of the one header of a record.
pub(crate) type Header = (&'static str, &'static [u8]);

impl Headers for Header {
    fn header(&self, name: &str) -> Option<&[u8]> {
        (self.0 == name).then_some(self.1)
    }
}

/// A record of `taxi-7` that was written 5 ms ago.
pub(crate) fn raw(value: Option<&str>) -> RawRecord<'_> {
    RawRecord {
        offset: 0,
        key: Some(b"taxi-7"),
        value: value.map(str::as_bytes),
        headers: &NONE,
        timestamp_ms: Some(NOW - 5),
    }
}
