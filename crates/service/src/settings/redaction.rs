//! What of a configuration may be shown: not passwords, and not what may hold one.

/// Properties of Kafka clients that hold no secret, beside those that are named by a unit.
const HARMLESS: [&str; 5] =
    ["security.protocol", "sasl.mechanism", "sasl.mechanisms", "client.id", "queued.max.messages.kbytes"];

/// Reports whether the value of a property that Tutti passes on may be shown. Everything that is not known to be
/// harmless is hidden: a misspelt password is a secret, too.
pub(super) fn is_harmless(property: &str) -> bool {
    property.ends_with(".ms") || property.ends_with(".bytes") || HARMLESS.contains(&property)
}

/// Returns a URL with user and password replaced by `(hidden)`.
pub fn without_userinfo(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://(hidden)@{}", &url[..scheme], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

/// Returns a URL with its query replaced by `(hidden)`.
pub(super) fn without_query(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(rest, _)| format!("{rest}?(hidden)"))
}
