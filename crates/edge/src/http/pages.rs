//! The HTML pages: the live map, and a waiting room as a visitor sees it.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::http::routes::readable;
use crate::http::shared::Shared;

/// The page of the map. It may connect anywhere, because it also listens to the other edges in `http.edges`.
static MAP: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("../../../../web/index.html"), "*"));
/// The page of a waiting room.
static ROOM: LazyLock<Page> =
    LazyLock::new(|| Page::new(include_str!("../../../../web/room.html"), "'self'"));

/// Registers the routes of the pages.
pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/", async |shared: web::Data<Shared>| MAP.answer(&shared)))
        .service(readable("/rooms/{room}", async |shared: web::Data<Shared>| ROOM.answer(&shared)));
}

/// The attribute in the files that says how many seconds pass at most between two events of an open stream.
const HEARTBEAT: &str = r#"data-heartbeat-seconds="15""#;

/// One page, with the headers that it is sent with.
struct Page {
    text: &'static str,
    /// The Content-Security-Policy of the page: only its own script runs in it, and no other page may frame it.
    policy: String,
}

impl Page {
    /// Returns a page whose script may connect to `connects_to`.
    fn new(text: &'static str, connects_to: &str) -> Self {
        let (scripts, styles) = (hashes(text, "script"), hashes(text, "style"));
        let policy = format!(
            "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; \
            connect-src {connects_to}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Self { text, policy }
    }

    /// Returns the response with the page. It carries the heartbeat of streams (`streams.heartbeat_seconds`), by which
    /// the page notices that its connection is dead.
    fn answer(&self, shared: &Shared) -> HttpResponse {
        let seconds = shared.streams.heartbeat.as_secs();
        let attribute = format!(r#"data-heartbeat-seconds="{seconds}""#);
        HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::CONTENT_SECURITY_POLICY, self.policy.as_str()))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(self.text.replacen(HEARTBEAT, &attribute, 1))
    }
}

/// Returns the hashes of the contents of all elements with this tag, as a Content-Security-Policy writes them.
fn hashes(text: &str, tag: &str) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let inside = text.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0));
    let hash = |inside: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside)));
    inside.map(hash).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_nothing_that_its_policy_stops() {
        // This is the example of Content Security Policy Level 3, 8.3.
        assert_eq!(
            hashes("<script>alert('Hello, world.');</script>", "script"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
        for page in [&MAP, &ROOM] {
            assert_eq!(page.text.matches(HEARTBEAT).count(), 1);
            for tag in ["script", "style"] {
                assert_eq!(page.text.matches(&format!("<{tag}")).count(), 1, "{tag} without attributes");
                assert_eq!(page.policy.matches("'sha256-").count(), 2);
            }
            for attribute in [" style=", " onclick=", " onload=", " src=", "javascript:"] {
                assert!(!page.text.contains(attribute), "{attribute}");
            }
        }
    }
}
