//! What went wrong, as gRPC has it.

use tonic::{Code, Status};
use tutti_service::{Failures, grpc};

use crate::metrics::{Metrics, RefusalLabel};
use crate::rooms::{Error, MAX_NUMBER, Refusal};

/// The status for callers while Redis does not answer.
const UNAVAILABLE: (Code, &str, &str) = (
    Code::Unavailable,
    "unavailable",
    "the waiting room does not answer at the moment; try again with the same key",
);
/// The status for callers if Redis holds something that the scripts do not expect.
const INTERNAL: (Code, &str, &str) =
    (Code::Internal, "internal", "the waiting room failed; its operator finds why under the request id");

/// Counts an error, and returns it as gRPC has it: why the call was refused, or that it failed.
pub(super) fn status_of(error: &Error, metrics: &Metrics, failures: &Failures) -> Status {
    let Error::Refused(refusal) = error else {
        metrics.failed.inc();
        let status = if error.is_internal() { INTERNAL } else { UNAVAILABLE };
        return grpc::failure(failures, status, "a call", error);
    };
    metrics.refused.get_or_create(&RefusalLabel { reason: refusal.as_str() }).inc();
    let code = match refusal {
        Refusal::NoRoom | Refusal::NoTicket | Refusal::Over => Code::NotFound,
        Refusal::Full => Code::ResourceExhausted,
        _ => Code::FailedPrecondition,
    };
    grpc::refusal(code, refusal.as_str(), error.to_string())
}

/// Returns the status of a call with an invalid argument.
pub(super) fn invalid(sentence: impl Into<String>) -> Status {
    grpc::refusal(Code::InvalidArgument, "invalid", sentence)
}

/// Checks that scripts can count to these numbers.
///
/// # Errors
/// Returns [`Code::InvalidArgument`] if a number is larger than [`MAX_NUMBER`], which no ticket has.
pub(super) fn check_numbers(numbers: impl IntoIterator<Item = u64>) -> Result<(), Status> {
    if numbers.into_iter().all(|number| number <= MAX_NUMBER) {
        Ok(())
    } else {
        Err(invalid(format!("a ticket's number and time are at most {MAX_NUMBER}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_script_can_count_to_is_an_invalid_argument() {
        assert!(check_numbers([0, 1, MAX_NUMBER]).is_ok());
        for number in [MAX_NUMBER + 1, 1 << 63, u64::MAX] {
            assert_eq!(check_numbers([1, number]).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
