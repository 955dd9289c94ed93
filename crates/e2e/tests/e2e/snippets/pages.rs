//! The blocks of code of README.md, docs/ and the other documents for users.

use std::path::{Path, PathBuf};

/// A block of code as it stands in a document.
pub(super) struct Snippet {
    /// The path of the document, from the root of the repository.
    pub(super) page: String,
    /// The line of the document at which the code begins.
    pub(super) line: usize,
    /// The heading above the block.
    pub(super) heading: String,
    /// The language that the block names; empty if it names none.
    pub(super) language: String,
    /// The code.
    pub(super) code: String,
}

/// Returns the root of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns the paths, from the root, of all documents whose snippets a reader may paste.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned).into();
    let mut folders = vec!["docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// Returns the snippets of all documents.
pub(super) fn all() -> Vec<Snippet> {
    pages().iter().flat_map(|page| of_page(page)).collect()
}

/// Returns the snippets of one document, in their order.
pub(super) fn of_page(page: &str) -> Vec<Snippet> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (mut snippets, mut heading, mut open) = (Vec::new(), String::new(), None::<Snippet>);
    for (line, text) in text.lines().enumerate() {
        match (&mut open, text.strip_prefix("```")) {
            (None, Some(language)) => {
                let (page, language) = (page.to_owned(), language.trim().to_owned());
                let heading = heading.clone();
                open = Some(Snippet { page, line: line + 2, heading, language, code: String::new() });
            }
            (Some(_), Some(_)) => snippets.extend(open.take()),
            (Some(snippet), None) => {
                snippet.code.push_str(text);
                snippet.code.push('\n');
            }
            (None, None) if text.starts_with('#') => {
                text.trim_start_matches('#').trim().clone_into(&mut heading);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block of code has no end");
    snippets
}

/// Returns the code of the first snippet in a language under a heading of a document.
pub(super) fn under(page: &str, heading: &str, language: &str) -> String {
    let found = of_page(page).into_iter().find(|one| one.heading == heading && one.language == language);
    found.unwrap_or_else(|| panic!("{page} has no {language} under {heading:?}")).code
}
