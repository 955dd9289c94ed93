//! The last word on one mediaId, and which of two is the later.

use std::sync::Arc;

use tutti_model::Fix;
use tutti_model::location::to_json;

pub(crate) type MediaId = Arc<str>;

/// The last word on one mediaId.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) timestamp_ms: i64,
    /// The feed of the record that brought it,
    pub(crate) shard: usize,
    /// and that record's number.
    brought_by: u64,
    /// The number of the record that last changed it: the one that brought it, or the one at whose
    /// time it was stale.
    pub(crate) seq: u64,
    is_fix: bool,
    pub(crate) removed: bool,
    /// The JSON object that clients get: the fix, or mediaId and timestamp of the removal.
    pub(crate) json: Box<str>,
}

impl Entry {
    pub(crate) fn fix(fix: &Fix, shard: usize, seq: u64) -> Self {
        let json = to_json(fix).into();
        let timestamp_ms = fix.timestamp_ms;
        Self { timestamp_ms, shard, brought_by: seq, seq, is_fix: true, removed: false, json }
    }

    pub(crate) fn removal(id: &str, timestamp_ms: i64, shard: usize, seq: u64) -> Self {
        let json = removal_json(id, timestamp_ms);
        Self { timestamp_ms, shard, brought_by: seq, seq, is_fix: false, removed: true, json }
    }

    /// A fix that is stale at the time of the record `seq` of its feed. It keeps its rank, or
    /// another feed's older word on the same mediaId could come after it.
    pub(crate) fn grown_stale(&self, id: &str, seq: u64) -> Self {
        let json = removal_json(id, self.timestamp_ms);
        Self { seq, removed: true, json, ..*self }
    }

    /// The newer timestamp wins; at equal ones a fix against a removal, then the later record.
    pub(crate) fn rank(&self) -> (i64, bool, usize, u64) {
        (self.timestamp_ms, self.is_fix, self.shard, self.brought_by)
    }
}

fn removal_json(id: &str, timestamp_ms: i64) -> Box<str> {
    let id = serde_json::to_string(id).expect("a string always serialises");
    format!(r#"{{"mediaId":{id},"timestamp":{timestamp_ms}}}"#).into()
}
