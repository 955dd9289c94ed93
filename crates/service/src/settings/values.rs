//! What a setting may be, in words: for mistakes and for documents.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

/// Describes the values of a type.
pub(super) fn values_text<T>() -> &'static str {
    match std::any::type_name::<T>().rsplit("::").next() {
        Some("bool") => "true or false",
        Some("SocketAddr") => "address:port",
        Some("String") => "text",
        _ => "a number",
    }
}

/// Describes a range for an error: `1 to 3600`, `at least 1`.
pub(super) fn range_text<T: Display>(range: &impl RangeBounds<T>) -> String {
    let least = match range.start_bound() {
        Bound::Included(least) => Some(least.to_string()),
        Bound::Excluded(below) => Some(format!("more than {below}")),
        Bound::Unbounded => None,
    };
    match (least, range.end_bound()) {
        (Some(least), Bound::Included(most)) => format!("{least} to {most}"),
        (Some(least), Bound::Excluded(above)) => format!("{least} to less than {above}"),
        (Some(least), Bound::Unbounded) => format!("at least {least}"),
        (None, Bound::Included(most)) => format!("at most {most}"),
        (None, Bound::Excluded(above)) => format!("less than {above}"),
        (None, Bound::Unbounded) => "any number".to_owned(),
    }
}

/// Lists the words of a choice for an error: `json or protobuf`, `log-age, beginning or end`.
pub(super) fn words_text<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
