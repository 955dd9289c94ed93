//! Configuration: defaults, then a TOML file, then `TUTTI_...` variables; the later one wins.
//!
//! A service asks [`Settings`] for each setting by its key, default and meaning. Mistakes are collected and reported
//! together by [`Settings::finish`], unknown keys of the file among them. The settings that a service has asked for
//! are also the list that `--check-config` prints ([`Settings::describe`]).

mod mistakes;
mod redaction;
mod sources;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::ops::RangeBounds;
use std::path::Path;
use std::str::FromStr;

use secrecy::SecretString;

use self::redaction::{is_harmless, without_query};
use self::sources::{Found, Sources, variable};
use self::values::{range_text, values_text, words_text};

pub use self::mistakes::Mistakes;
pub use self::redaction::without_userinfo;

/// Reads the settings of a service, and collects the mistakes in them.
pub struct Settings {
    sources: Sources,
    asked: BTreeMap<String, Asked>,
    mistakes: Vec<String>,
}

/// A setting that the service has asked for, as `--check-config` prints it.
struct Asked {
    shown: String,
    origin: String,
    values: String,
    help: &'static str,
}

/// A setting that a service has asked for, for documents.
pub struct Described<'a> {
    /// The key, such as `http.listen`.
    pub key: &'a str,
    /// The environment variable that sets the setting.
    pub variable: String,
    /// The values that the setting takes, for example `1 to 3600`.
    pub values: &'a str,
    /// The current value. A secret shows only whether there is one.
    pub value: &'a str,
    /// What the setting means.
    pub help: &'static str,
}

impl Settings {
    /// Reads the file, if there is one, and keeps those variables whose names begin with `TUTTI_`. A file that cannot
    /// be read is a mistake that [`Settings::finish`] reports.
    pub fn new(file: Option<&Path>, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut mistakes = Vec::new();
        let sources = Sources::read(file, variables, &mut mistakes);
        Self { sources, asked: BTreeMap::new(), mistakes }
    }

    /// Returns a setting of any type that can be parsed from text.
    pub fn get<T: FromStr<Err: Display> + Display>(
        &mut self,
        key: &str,
        default: T,
        help: &'static str,
    ) -> T {
        self.get_checked(key, default, help, |_| Ok(()))
    }

    /// Returns a setting that `check` accepts. What `check` returns as an error is reported as a mistake.
    pub fn get_checked<T: FromStr<Err: Display> + Display>(
        &mut self,
        key: &str,
        default: T,
        help: &'static str,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> T {
        let values = values_text::<T>();
        let Some(Found { text, origin }) = self.sources.look_up(key) else {
            self.note(key, default.to_string(), "default", values, help);
            return default;
        };
        self.note(key, text.clone(), &origin, values, help);
        let value = match text.trim().parse::<T>() {
            Ok(value) => value,
            Err(error) => {
                self.mistake(format!("{key} = {text:?} ({origin}): {error}; it is: {help}"));
                return default;
            }
        };
        if let Err(why) = check(&value) {
            self.mistake(format!("{key} = {text:?} ({origin}): {why}"));
        }
        value
    }

    /// Returns a number that must lie in `range`, for example `1..=3600` or `1..`.
    pub fn number<T: FromStr<Err: Display> + Display + PartialOrd>(
        &mut self,
        key: &str,
        default: T,
        range: impl RangeBounds<T>,
        help: &'static str,
    ) -> T {
        let values = range_text(&range);
        let number = self.get_checked(key, default, help, |number| {
            if range.contains(number) { Ok(()) } else { Err(format!("must be {values}")) }
        });
        self.limit(key, values);
        number
    }

    /// Returns the value that `choices` names by a word.
    ///
    /// # Panics
    /// If `default` is not among the choices.
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        default: &str,
        choices: &[(&str, T)],
        help: &'static str,
    ) -> T {
        let value_of = |word: &str| choices.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        let word = self.get_checked(key, default.to_owned(), help, |word| {
            if value_of(word).is_some() { Ok(()) } else { Err(format!("must be {}", words_text(choices))) }
        });
        self.limit(key, words_text(choices));
        value_of(&word).or_else(|| value_of(default)).expect("the default is one of the choices")
    }

    /// Returns a list: an array in the file, or text with commas in the file or a variable.
    pub fn list(&mut self, key: &str, default: &[&str], help: &'static str) -> Vec<String> {
        let Found { text, origin } =
            self.sources.look_up(key).unwrap_or_else(|| Found::default_of(default.join(",")));
        self.note(key, text.clone(), &origin, "a list", help);
        text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    /// Returns a text, or `None` if it is absent or empty.
    pub fn optional(&mut self, key: &str, help: &'static str) -> Option<String> {
        let found = self.sources.look_up(key).filter(|found| !found.text.is_empty());
        let shown = found.clone().unwrap_or_else(|| Found::default_of("(none)".to_owned()));
        self.note(key, shown.text, &shown.origin, "text", help);
        found.map(|found| found.text)
    }

    /// Returns a secret, or `None` if it is absent or empty. `--check-config` never shows it.
    pub fn secret(&mut self, key: &str, help: &'static str) -> Option<SecretString> {
        let found = self.sources.look_up(key).filter(|found| !found.text.is_empty());
        match &found {
            Some(found) => self.note(key, "(hidden)".to_owned(), &found.origin, "a secret", help),
            None => self.note(key, "(none)".to_owned(), "default", "a secret", help),
        }
        found.map(|found| found.text.into())
    }

    /// Returns a URL. `--check-config` shows it without user, password and query.
    pub fn url(&mut self, key: &str, default: &str, help: &'static str) -> SecretString {
        let Found { text, origin } =
            self.sources.look_up(key).unwrap_or_else(|| Found::default_of(default.to_owned()));
        self.note(key, without_query(&without_userinfo(&text)), &origin, "a URL", help);
        text.into()
    }

    /// Returns the names of the tables of the file that lie directly in the table `prefix`.
    pub fn tables(&self, prefix: &str) -> BTreeSet<String> {
        self.sources.tables(prefix)
    }

    /// Returns all settings below `prefix`, in the file and in variables, as they are written: settings of a library
    /// that Tutti passes on. Names in such a library have dots and no underscores, so an underscore in the name of a
    /// variable stands for a dot.
    pub fn rest(&mut self, prefix: &str, help: &'static str) -> BTreeMap<String, String> {
        let found = self.sources.below(prefix);
        for (key, found) in &found {
            let shown = if is_harmless(key) { found.text.clone() } else { "(hidden)".to_owned() };
            self.note(&format!("{prefix}.{key}"), shown, &found.origin, "text", help);
        }
        found.into_iter().map(|(key, found)| (key, found.text)).collect()
    }

    /// Adds a mistake that only the service can see, for example two settings that contradict each other.
    pub fn mistake(&mut self, text: impl Into<String>) {
        self.mistakes.push(text.into());
    }

    /// Ends the reading: every key of the file that nothing asked for becomes a mistake.
    ///
    /// # Errors
    /// All mistakes, if there is any.
    pub fn finish(&mut self) -> Result<(), Mistakes> {
        for key in self.sources.file_keys().filter(|key| !self.asked.contains_key(*key)) {
            self.mistakes.push(match nearest(key, self.asked.keys()) {
                Some(near) => format!("{key}: no such setting; did you mean {near}?"),
                None => format!("{key}: no such setting"),
            });
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(Mistakes(std::mem::take(&mut self.mistakes))) }
    }

    /// Returns the `TUTTI_...` variables that set nothing. They deserve a warning and are no error, since Kubernetes
    /// sets such variables by itself.
    pub fn unknown_variables(&self) -> Vec<String> {
        let asked: BTreeSet<String> = self.asked.keys().map(|key| variable(key)).collect();
        self.sources.variables().filter(|name| !asked.contains(*name)).cloned().collect()
    }

    /// Describes every setting: its meaning, its variable, where its value comes from, and the value.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, asked) in &self.asked {
            let variable = variable(key);
            let _ = writeln!(
                text,
                "# {}\n# {variable} ({})\n{key} = {}\n",
                asked.help, asked.origin, asked.shown
            );
        }
        text
    }

    /// Returns every setting that the service has asked for, by key.
    pub fn described(&self) -> impl Iterator<Item = Described<'_>> {
        self.asked.iter().map(|(key, Asked { shown, values, help, .. })| Described {
            key,
            variable: variable(key),
            values,
            value: shown,
            help,
        })
    }

    fn note(&mut self, key: &str, shown: String, origin: &str, values: &str, help: &'static str) {
        let (origin, values) = (origin.to_owned(), values.to_owned());
        self.asked.insert(key.to_owned(), Asked { shown, origin, values, help });
    }

    /// Describes the values of a setting, where their type does not.
    fn limit(&mut self, key: &str, values: String) {
        if let Some(asked) = self.asked.get_mut(key) {
            asked.values = values;
        }
    }
}

/// Accepts any text that is not empty: a check for [`Settings::get_checked`].
///
/// # Errors
/// If the text is empty.
#[expect(clippy::ptr_arg, reason = "checks of a text receive it as a &String")]
pub fn not_empty(text: &String) -> Result<(), String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

/// Returns the known key that is most similar to one that does not exist.
fn nearest<'a>(key: &str, asked: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    asked
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
