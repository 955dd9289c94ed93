//! The claims of a token: what a valid token says, and the types of its members.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

/// The claims of a token whose signature was verified.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    /// The time at which the token expires. [`Claims::check_times`] refuses a token without it.
    exp: Option<NumericDate>,
    /// The time before which the token is not valid.
    nbf: Option<NumericDate>,
    /// The scopes that the token grants.
    #[serde(default, deserialize_with = "null_is_absent")]
    scope: Words,
    /// The user; empty if the token names none.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub(crate) sub: String,
}

/// Deserializes a member that some issuers write as `null` where they have no value for it.
fn null_is_absent<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A point in time, held as the time since 1970. In a token it is a number of seconds, which may have a fraction
/// (RFC 7519, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NumericDate(Duration);

impl NumericDate {
    /// Returns the point in time that is a whole number of seconds after the start of 1970.
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns the present, by the clock of this host.
    fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Returns how long it is until this time; zero if it has passed, a century at most.
    pub(crate) fn time_left(self) -> Duration {
        // A century stands for ever: added to an instant, it does not overflow.
        self.0.saturating_sub(Self::now().0).min(Duration::from_secs(3_155_760_000))
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // A time before 1970 has passed as surely as 1970 itself; a time that no clock will show never comes.
        Ok(Self(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
    }
}

/// The words of a claim: one text in which blanks separate them (RFC 8693), or a list, as some issuers write it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Claims {
    /// Returns how long the token is valid; zero if it has expired or names no time.
    pub(crate) fn time_left(&self) -> Duration {
        self.exp.map(NumericDate::time_left).unwrap_or_default()
    }

    /// Checks that the token is valid now.
    ///
    /// # Errors
    /// Why it is not, in words that may be shown to the client.
    pub(crate) fn check_times(&self) -> Result<(), &'static str> {
        match self.exp {
            None => Err("exp is missing: a token must say when it expires"),
            Some(_) if self.time_left().is_zero() => Err("expired"),
            Some(_) if self.nbf.is_some_and(|nbf| nbf > NumericDate::now()) => Err("not valid yet"),
            Some(_) => Ok(()),
        }
    }

    /// Whether the token grants `scope`.
    pub(crate) fn may(&self, scope: &str) -> bool {
        match &self.scope {
            Words::Text(text) => text.split_ascii_whitespace().any(|word| word == scope),
            Words::List(words) => words.iter().any(|word| word == scope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(claims: Value) -> Result<Claims, &'static str> {
        let claims: Claims = serde_json::from_value(claims).map_err(|_| "malformed")?;
        claims.check_times().map(|()| claims)
    }

    #[test]
    fn times_of_a_token_may_have_fractions_and_are_kept_to_them() {
        let now = NumericDate::now().0.as_secs_f64();
        let left =
            check(json!({"exp": now + 3600.75, "nbf": now - 0.25, "iat": now - 0.5})).unwrap().time_left();
        assert!((3540.0..3600.75).contains(&left.as_secs_f64()), "{left:?}");
        for exp in [json!(now.ceil() + 3600.0), json!(now as u64 + 3600), json!(1e300), json!(u64::MAX)] {
            assert!(check(json!({ "exp": exp })).is_ok(), "{exp}");
        }
        for exp in [now - 0.001, now - 1.0, 0.5, -1.5] {
            assert_eq!(check(json!({ "exp": exp })).unwrap_err(), "expired", "{exp}");
        }
        assert_eq!(check(json!({"exp": now + 3600.0, "nbf": now + 60.5})).unwrap_err(), "not valid yet");
        for none in [json!({}), json!({"exp": null})] {
            assert_eq!(check(none).unwrap_err(), "exp is missing: a token must say when it expires");
        }
        for other in [json!({"exp": "soon"}), json!({"exp": now + 60.0, "nbf": [0]})] {
            assert_eq!(check(other).unwrap_err(), "malformed");
        }
    }

    #[test]
    fn claims_that_are_null_are_absent() {
        let claims: Claims = serde_json::from_str(r#"{"exp":1,"scope":null,"sub":null}"#).unwrap();
        assert_eq!((claims.may("a"), claims.sub.as_str()), (false, ""));
    }
}
