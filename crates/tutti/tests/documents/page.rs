//! A document, as far as its links and names are concerned.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Documents outside of `docs/`, by their paths from the root of the repository.
const OTHERS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "data/README.md",
    "deploy/kubernetes/README.md",
    "examples/gateway/README.md",
];

/// A document in Markdown.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Page {
    /// The anchors of its headings, as GitHub and mdBook make them.
    pub(super) anchors: BTreeSet<String>,
    /// Where its links and images lead.
    pub(super) links: Vec<String>,
    /// What it shows as code within a sentence.
    pub(super) code: Vec<String>,
}

impl Page {
    /// Reads a document.
    pub(super) fn of(text: &str) -> Self {
        let (mut page, mut heading) = (Self::default(), None::<String>);
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.add_anchor(&heading.take().unwrap_or_default()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Text(text) => heading.iter_mut().for_each(|heading| heading.push_str(&text)),
                Event::Code(code) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&code));
                    page.code.push(code.into_string());
                }
                _ => {}
            }
        }
        page
    }

    fn add_anchor(&mut self, heading: &str) {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|one| !self.anchors.contains(one));
        self.anchors.extend(free);
    }
}

/// Returns the root of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns the paths of all documents, from the root of the repository.
pub(super) fn paths() -> Vec<String> {
    let (mut paths, mut folders) = (OTHERS.map(str::to_owned).to_vec(), vec!["docs".to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                paths.push(path);
            }
        }
    }
    paths
}

/// Reads the document at a path from the root of the repository.
pub(super) fn read(path: &str) -> Page {
    Page::of(&std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")))
}

#[test]
fn a_page_has_the_anchors_links_and_names_of_its_text() {
    let page =
        Page::of("# `a_b` of C-D, *e*!\n# x\n# x\n[l](p.md#q) ![i](i.png) `code`\n```sh\n[no](link)\n```\n");
    let anchors = ["a_b-of-c-d-e", "x", "x-1"].map(str::to_owned).into();
    let links = ["p.md#q", "i.png"].map(str::to_owned).to_vec();
    assert_eq!(page, Page { anchors, links, code: vec!["a_b".to_owned(), "code".to_owned()] });
}
