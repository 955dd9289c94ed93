//! The pages: the map, and a waiting room as a visitor sees it.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::http::routes::readable;
use crate::http::shared::Shared;

/// The map listens to other edges too, of which it is told.
static MAP: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("../../../../web/index.html"), "*"));
static ROOM: LazyLock<Page> =
    LazyLock::new(|| Page::new(include_str!("../../../../web/room.html"), "'self'"));

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/", async |shared: web::Data<Shared>| MAP.answer(&shared)))
        .service(readable("/rooms/{room}", async |shared: web::Data<Shared>| ROOM.answer(&shared)));
}

/// How often a stream brings an event at least, as it stands in the files.
const HEARTBEAT: &str = r#"data-heartbeat-seconds="15""#;

struct Page {
    text: &'static str,
    /// Its Content-Security-Policy: nothing runs in it but its own script, and no other page may frame it.
    policy: String,
}

impl Page {
    /// A page that may ask `connects_to` for something.
    fn new(text: &'static str, connects_to: &str) -> Self {
        let (scripts, styles) = (hashes(text, "script"), hashes(text, "style"));
        let policy = format!(
            "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; \
            connect-src {connects_to}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Self { text, policy }
    }

    /// Answers with the page, in which it writes how often an open stream brings an event at least. By that the
    /// page knows when its connection is dead.
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

/// The hashes of all that stands between tags of this name, as a policy names them.
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
        // The example of Content Security Policy Level 3, 8.3.
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
