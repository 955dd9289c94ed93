//! The structure of this workspace, as CONTRIBUTING.md describes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use tutti_structure::modules::{Graph, Modules, name};
use tutti_structure::rings::rings;

/// Lines that a source file has, at most.
const MAX_LINES: usize = 400;
/// The folders of jobs in the edge, none of which may name another.
const JOBS: [&str; 4] = ["map", "rooms", "inbox", "topics"];
/// The folders of the edge that all jobs stand on, none of which may name a job.
const BELOW_JOBS: [&str; 2] = ["http", "following"];

/// The folders of all crates.
fn crates() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut crates: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.retain(|folder| folder.join("Cargo.toml").is_file());
    crates.sort();
    assert!(crates.len() > 8, "{crates:?}");
    crates
}

/// The folders of a crate that hold modules: its library or binary, and each test that has a folder.
fn roots(folder: &Path) -> Vec<PathBuf> {
    let tests =
        std::fs::read_dir(folder.join("tests")).into_iter().flatten().map(|entry| entry.unwrap().path());
    [folder.join("src")].into_iter().chain(tests.filter(|path| path.join("main.rs").is_file())).collect()
}

fn graph(folder: &Path) -> Graph {
    Modules::read(folder).unwrap().graph()
}

#[test]
fn no_module_imports_itself() {
    let mut found = Vec::new();
    for root in crates().iter().flat_map(|folder| roots(folder)) {
        let shown = root.components().rev().take(2).collect::<Vec<_>>();
        let shown: PathBuf = shown.into_iter().rev().collect();
        found.extend(rings(&graph(&root)).into_iter().map(|ring| format!("{}: {ring}", shown.display())));
    }
    assert!(
        found.is_empty(),
        "modules import themselves; move what both sides of a ring need into a module that names neither:\n{}",
        found.join("\n")
    );
}

#[test]
fn no_job_of_the_edge_names_another_and_what_they_stand_on_names_none() {
    let graph = graph(&Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("edge").join("src"));
    let mut found = Vec::new();
    for (from, to) in graph.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to))) {
        let [Some(left), Some(right)] = [from.first(), to.first()] else { continue };
        let stands_below = JOBS.contains(&left.as_str()) || BELOW_JOBS.contains(&left.as_str());
        if stands_below && JOBS.contains(&right.as_str()) && left != right {
            found.push(format!("{} names {}", name(from), name(to)));
        }
    }
    assert!(
        found.is_empty(),
        "move what both need into http, following or a crate below:\n{}",
        found.join("\n")
    );
    for folder in JOBS {
        assert!(
            graph.keys().any(|module| module.len() > 1 && module[0] == folder),
            "there is no folder {folder}"
        );
    }
}

#[test]
fn no_source_file_is_long() {
    let (mut found, mut folders, mut files) = (Vec::new(), crates(), 0);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().count();
                files += 1;
                if lines > MAX_LINES && !text.lines().next().is_some_and(|first| first.contains("@generated"))
                {
                    found.push(format!("{} has {lines} lines", path.display()));
                }
            }
        }
    }
    assert!(files > 100, "{files} files were read");
    assert!(found.is_empty(), "split by subject what has more than {MAX_LINES} lines:\n{}", found.join("\n"));
}
