//! The references that are generated from the code. Each test compares one with its file, and writes it where the variable
//! `UPDATE_REFERENCE` is set: `make reference` does that.

mod config;
mod metrics;

use crate::page::{paths, read, root};

/// Compares a generated page with its file in docs/reference/, or writes that file.
fn is_current(name: &str, generated: &str) {
    let path = root().join("docs/reference").join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, generated).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let other = generated.lines().zip(text.lines()).find(|(generated, there)| generated != there);
    assert!(
        text == generated,
        "docs/reference/{name} is not as the code is: run make reference. It begins at {other:?}"
    );
}

/// Returns what the documents show as code within a sentence, each with its document.
fn names() -> impl Iterator<Item = (String, String)> {
    paths().into_iter().flat_map(|path| read(&path).code.into_iter().map(move |name| (path.clone(), name)))
}

/// Joins names as a sentence does: `a, b and c`.
fn joined(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// Makes text fit into a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
