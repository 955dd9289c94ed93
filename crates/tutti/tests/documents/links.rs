//! Links between documents. Links to other sites are not followed.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::page::{Page, paths, read, root};

/// Folders of the repository. Code such as `web/index.html` in a document names a file in one of them.
const FOLDERS: [&str; 7] = ["crates/", "data/", "deploy/", "docs/", "examples/", "proto/", "web/"];

/// Returns a path without its `..`; `None` if it leaves the repository.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => resolved.pop().then_some(())?,
            _ => {}
        }
    }
    Some(resolved)
}

/// Returns what is wrong with a link of the document at `from`, if anything is.
fn fault(from: &str, link: &str, pages: &BTreeMap<String, Page>) -> Option<String> {
    let is_external = ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme));
    if is_external {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let to = if path.is_empty() {
        Some(from.into())
    } else {
        resolved(&Path::new(from).with_file_name("").join(path))
    };
    let Some(to) = to else { return Some("it leaves the repository".to_owned()) };
    let to = to.to_str().unwrap();
    if !root().join(to).exists() {
        return Some(format!("there is no {to}"));
    }
    if from.starts_with("docs/") && !to.starts_with("docs/") {
        return Some(
            "it leaves docs/, and the book has no such page: name the file as code instead".to_owned(),
        );
    }
    let anchor = anchor?;
    match pages.get(to) {
        Some(page) if page.anchors.contains(anchor) => None,
        _ => Some(format!("{to} has no heading for #{anchor}")),
    }
}

fn all() -> BTreeMap<String, Page> {
    paths().into_iter().map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn every_link_of_the_documents_leads_to_a_file_and_a_heading() {
    let pages = all();
    let faults: Vec<String> = pages
        .iter()
        .flat_map(|(from, page)| page.links.iter().map(move |link| (from, link)))
        .filter_map(|(from, link)| Some(format!("{from}: ({link}): {}", fault(from, link, &pages)?)))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_link_without_its_file_or_heading_is_a_fault() {
    let page = Page::of("# Here");
    let pages =
        [("docs/guides/map.md".to_owned(), page), ("docs/limits.md".to_owned(), Page::of("# Logs"))].into();
    let fault = |link| fault("docs/guides/map.md", link, &pages).unwrap_or_default();
    for good in ["#here", "../limits.md", "../limits.md#logs", "https://example.org/#x", "../images/map.png"]
    {
        assert_eq!(fault(good), "", "{good}");
    }
    assert!(fault("#there").contains("no heading"));
    assert!(fault("../limits.md#here").contains("no heading"));
    assert!(fault("limits.md").contains("there is no docs/guides/limits.md"));
    assert!(fault("../../README.md").contains("leaves docs/"));
    assert!(fault("../../../x").contains("leaves the repository"));
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for (from, page) in all() {
        for name in page.code.iter().filter(|code| FOLDERS.iter().any(|folder| code.starts_with(folder))) {
            let is_a_pattern = name.contains(['*', '{', '<', ' ']);
            if !is_a_pattern && !root().join(name).exists() {
                missing.push(format!("{from}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "these do not exist:\n{}", missing.join("\n"));
}

#[test]
fn the_book_lists_every_page_of_docs() {
    let listed = read("docs/SUMMARY.md").links;
    for path in paths() {
        if let Some(page) = path.strip_prefix("docs/").filter(|page| *page != "SUMMARY.md") {
            assert!(listed.iter().any(|link| link == page), "docs/SUMMARY.md does not list {page}");
        }
    }
}
