//! Where settings come from: a TOML file and variables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use config::{Config, File, FileFormat, Value, ValueKind};

/// The values of the file and of the variables.
#[derive(Default)]
pub(super) struct Sources {
    /// The values of the file by their full keys, such as `http.listen`.
    file: BTreeMap<String, Value>,
    /// Tables of the file that hold nothing. Their names still count: an empty `[routes.a]` is a route.
    empty_tables: BTreeSet<String>,
    variables: BTreeMap<String, String>,
}

/// The text of a setting, and its origin: `file`, `default` or the name of a variable.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) origin: String,
}

impl Found {
    pub(super) fn default_of(text: String) -> Self {
        Self { text, origin: "default".to_owned() }
    }

    fn in_file(text: String) -> Self {
        Self { text, origin: "file".to_owned() }
    }
}

impl Sources {
    /// Reads the file, and keeps those variables whose names begin with `TUTTI_`. A file that cannot be read is added
    /// to the mistakes.
    pub(super) fn read(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        mistakes: &mut Vec<String>,
    ) -> Self {
        let mut sources = Self::default();
        if let Some(path) = file {
            match Config::builder().add_source(File::from(path).format(FileFormat::Toml)).build() {
                Ok(config) => sources.flatten("", config.cache),
                Err(error) => {
                    mistakes.push(format!("{}: {}", path.display(), without_source(&error.to_string())));
                }
            }
        }
        sources.variables = variables.into_iter().filter(|(name, _)| name.starts_with("TUTTI_")).collect();
        sources
    }

    /// Looks a setting up. A variable wins over the file.
    pub(super) fn look_up(&self, key: &str) -> Option<Found> {
        let variable = variable(key);
        if let Some(text) = self.variables.get(&variable) {
            return Some(Found { text: text.clone(), origin: variable });
        }
        text_of(self.file.get(key)?).map(Found::in_file)
    }

    /// Returns the names of the tables of the file that lie directly in the table `prefix`.
    pub(super) fn tables(&self, prefix: &str) -> BTreeSet<String> {
        let prefix = format!("{prefix}.");
        let filled = self.file.keys().filter_map(|key| Some(key.strip_prefix(&prefix)?.split_once('.')?.0));
        let empty = self.empty_tables.iter().filter_map(|name| name.strip_prefix(&prefix));
        filled.chain(empty).map(str::to_owned).collect()
    }

    /// Returns all settings below `prefix`, by the rest of their keys.
    pub(super) fn below(&self, prefix: &str) -> BTreeMap<String, Found> {
        let start = format!("{prefix}.");
        let variables = format!("{}_", variable(prefix));
        let in_file = self.file.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(&start)?.to_owned(), Found::in_file(text_of(value)?)))
        });
        let in_variables = self.variables.iter().filter_map(|(name, text)| {
            let key = name.strip_prefix(&variables)?.to_lowercase().replace('_', ".");
            Some((key, Found { text: text.clone(), origin: name.clone() }))
        });
        in_file.chain(in_variables).collect()
    }

    /// Returns the keys of all values of the file.
    pub(super) fn file_keys(&self) -> impl Iterator<Item = &String> {
        self.file.keys()
    }

    /// Returns the names of all variables that begin with `TUTTI_`.
    pub(super) fn variables(&self) -> impl Iterator<Item = &String> {
        self.variables.keys()
    }

    fn flatten(&mut self, prefix: &str, value: Value) {
        match value.kind {
            ValueKind::Table(table) if table.is_empty() => {
                self.empty_tables.insert(prefix.to_owned());
            }
            ValueKind::Table(table) => {
                for (key, value) in table {
                    let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    self.flatten(&key, value);
                }
            }
            _ => {
                self.file.insert(prefix.to_owned(), value);
            }
        }
    }
}

/// Returns the name of the variable that sets a key: `TUTTI_HTTP_LISTEN` for `http.listen`.
pub(super) fn variable(key: &str) -> String {
    format!("TUTTI_{}", key.replace(['.', '-'], "_").to_uppercase())
}

fn text_of(value: &Value) -> Option<String> {
    if let ValueKind::Array(values) = &value.kind {
        let texts: Option<Vec<String>> = values.iter().map(text_of).collect();
        return texts.map(|texts| texts.join(","));
    }
    value.clone().into_string().ok()
}

/// Returns an error of the TOML reader without the lines of the file that it quotes, since they may hold a secret.
fn without_source(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|')
    };
    let lines: Vec<&str> = error.lines().filter(|line| !quoted(line)).collect();
    lines.join("; ")
}
