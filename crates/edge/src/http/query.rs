//! The query of a request, and what a client asks of any stream.

use std::time::Duration;

use actix_web::{HttpRequest, web};

use crate::http::problem::Problem;

/// Length in bytes of the longest last id that is accepted from a client.
pub(crate) const MAX_ID_BYTES: usize = 16 * 1024;

/// Returns the value of the first parameter with this name; `None` if the query has none or cannot be read.
pub(crate) fn query_of(request: &HttpRequest, name: &str) -> Option<String> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    pairs.into_inner().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// What a client asks of any stream.
pub(crate) struct StreamQuery {
    /// The id of the last event that the client received, if it says so.
    pub(crate) last_id: Option<String>,
    /// How long the stream may live, if the client bounds that.
    pub(crate) longest: Option<Duration>,
}

impl StreamQuery {
    /// Reads the query and the last id of a request. The last id is the first of these that is present and not empty:
    ///
    /// 1. the header `Last-Event-ID`, which browsers send;
    /// 2. `lastEventId` or `last-event-id` in the query, in any case of letters, which polyfills and Mercure's clients
    ///    send;
    /// 3. `since` in the query.
    ///
    /// This order prefers the newest, because a client that reconnects repeats the rest of its URL.
    ///
    /// # Errors
    /// If the query cannot be read, has one of these names twice, or a `maxSeconds` that is not a number.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let query =
            web::Query::<Vec<(String, String)>>::from_query(request.query_string()).map_err(|_| {
                Problem::bad_request("the query cannot be read: write it as name=value&name=value")
            })?;
        let one = |names: &[&str]| {
            let is_named = |name: &str| names.iter().any(|one| name.eq_ignore_ascii_case(one));
            let mut found = query.iter().filter(|(name, _)| is_named(name)).map(|(_, value)| value.as_str());
            let first = found.next();
            match found.next() {
                Some(_) => Err(Problem::bad_request(format!("the query may have {} only once", names[0]))),
                None => Ok(first.filter(|value| !value.is_empty())),
            }
        };
        let header = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
        let (newer, older) = (one(&["lastEventId", "last-event-id"])?, one(&["since"])?);
        let last_id = header.filter(|id| !id.is_empty()).or(newer).or(older).map(str::to_owned);
        let longest = duration_of(one(&["maxSeconds"])?.unwrap_or_default()).map_err(Problem::bad_request)?;
        Ok(Self { last_id, longest })
    }
}

/// Returns the time that `maxSeconds` gives, at least a second; `None` if it sets no bound.
///
/// # Errors
/// What to write instead, if the text is not a number.
fn duration_of(max_seconds: &str) -> Result<Option<Duration>, &'static str> {
    let text = max_seconds.trim();
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(seconds) if !seconds.is_nan() => Ok(Duration::try_from_secs_f64(seconds.max(1.0)).ok()),
        _ => Err("maxSeconds must be a number of seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longest_time_is_read_as_scripts_write_numbers() {
        let seconds = |n| Ok(Some(Duration::from_secs(n)));
        for (text, wanted) in [
            ("60", seconds(60)),
            ("60.0", seconds(60)),
            (" 6e1 ", seconds(60)),
            ("0", seconds(1)),
            ("-5", seconds(1)),
            ("0.5", seconds(1)),
            ("", Ok(None)),
            ("Infinity", Ok(None)),
            ("1e300", Ok(None)),
        ] {
            assert_eq!(duration_of(text), wanted, "{text}");
        }
        assert!(duration_of("undefined").is_err() && duration_of("NaN").is_err());
    }
}
