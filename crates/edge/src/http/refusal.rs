//! Why a request has no right to what it asks for.

use std::fmt;

/// Why a request is refused. The text never contains anything of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request has no token.
    Missing,
    /// The token is not valid, and why.
    Invalid(String),
    /// The token does not grant this scope.
    Scope(&'static str),
    /// The keys that may have signed the token have not been fetched yet.
    Unchecked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "a token is needed: in the Authorization header (Bearer), the cookie, or ?access_token=",
            ),
            Self::Invalid(why) => write!(f, "the token is not valid: {why}"),
            Self::Scope(scope) => write!(f, "the token's scope lacks {scope}"),
            Self::Unchecked => f.write_str("the keys to check tokens with could not be fetched yet"),
        }
    }
}
