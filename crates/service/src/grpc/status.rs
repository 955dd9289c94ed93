//! How a service says that it does not answer a call.

use std::fmt::Display;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::failures::Failures;

/// Metadata key of the word for why a call was refused. A message that comes with it may be shown to strangers.
pub const REASON: &str = "tutti-reason";
/// Metadata key of the request id under which the log of the service says why a call failed.
pub const REQUEST_ID: &str = "tutti-request-id";

/// Returns a refusal. The caller gets the whole reason: a word for programs and a sentence for people.
pub fn refusal(code: Code, reason: &'static str, sentence: impl Into<String>) -> Status {
    let mut status = Status::new(code, sentence);
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    status
}

/// Returns a failure that is not the caller's. The caller gets a fixed sentence and a request id, and the log gets
/// the error under the same id.
pub fn failure(
    failures: &Failures,
    (code, reason, sentence): (Code, &'static str, &'static str),
    doing: &str,
    error: &dyn Display,
) -> Status {
    let mut status = refusal(code, reason, sentence);
    if let Ok(id) = failures.log(doing, error).parse() {
        status.metadata_mut().insert(REQUEST_ID, id);
    }
    status
}
