//! Configuration: defaults, then a TOML file, then `TUTTI_...` variables.
//!
//! A service asks for each setting by its key, default and meaning. All mistakes are gathered and
//! reported at once, unknown keys of the file among them; what was asked for is also the list that
//! `--check-config` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use config::{Config, File, FileFormat, Value, ValueKind};
use secrecy::SecretString;

/// What may be shown of the settings that are handed through.
const HARMLESS: [&str; 5] =
    ["security.protocol", "sasl.mechanism", "sasl.mechanisms", "client.id", "queued.max.messages.kbytes"];

/// Every mistake of a configuration, a line each.
#[derive(Debug)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in the configuration:", if self.0.len() == 1 { "a mistake" } else { "mistakes" })?;
        for mistake in &self.0 {
            writeln!(f, "  - {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The settings as given, and what was asked of them.
pub struct Settings {
    file: BTreeMap<String, Value>,
    variables: BTreeMap<String, String>,
    asked: BTreeMap<String, Asked>,
    mistakes: Vec<String>,
    /// Tables of the file that hold nothing: their names still count.
    empty_tables: BTreeSet<String>,
}

struct Asked {
    shown: String,
    origin: String,
    help: &'static str,
}

impl Settings {
    /// Settings from a file, if there is one, and variables, of which those that begin with
    /// `TUTTI_` count. A file that cannot be read is a mistake that [`Settings::finish`] reports.
    pub fn new(file: Option<&Path>, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut mistakes = Vec::new();
        let mut flat = BTreeMap::new();
        let mut empty_tables = BTreeSet::new();
        if let Some(path) = file {
            let source = File::from(path).format(FileFormat::Toml);
            match Config::builder().add_source(source).build() {
                Ok(config) => flatten("", config.cache, &mut flat, &mut empty_tables),
                Err(error) => {
                    mistakes.push(format!("{}: {}", path.display(), without_source(&error.to_string())));
                }
            }
        }
        let variables = variables.into_iter().filter(|(name, _)| name.starts_with("TUTTI_")).collect();
        Self { file: flat, variables, asked: BTreeMap::new(), mistakes, empty_tables }
    }

    /// The variable that sets a key: `http.listen` is `TUTTI_HTTP_LISTEN`.
    pub fn variable(key: &str) -> String {
        format!("TUTTI_{}", key.replace(['.', '-'], "_").to_uppercase())
    }

    /// A setting of any type that is read from text. What `check` says against it is a mistake.
    pub fn get<T: FromStr<Err: fmt::Display> + Clone + fmt::Display>(
        &mut self,
        key: &str,
        default: T,
        help: &'static str,
        check: impl FnOnce(&T) -> Result<(), &'static str>,
    ) -> T {
        let Some((text, origin)) = self.look_up(key) else {
            self.note(key, default.to_string(), "default".into(), help);
            return default;
        };
        self.note(key, text.clone(), origin.clone(), help);
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

    /// A list, given as an array in the file or with commas in a variable.
    pub fn list(&mut self, key: &str, default: &[&str], help: &'static str) -> Vec<String> {
        let (text, origin) = self.look_up(key).unwrap_or_else(|| (default.join(","), "default".to_owned()));
        self.note(key, text.clone(), origin, help);
        text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    /// A text that may be absent.
    pub fn optional(&mut self, key: &str, help: &'static str) -> Option<String> {
        let found = self.look_up(key).filter(|(text, _)| !text.is_empty());
        let (shown, origin) = found.clone().unwrap_or_else(|| ("(none)".into(), "default".into()));
        self.note(key, shown, origin, help);
        found.map(|(text, _)| text)
    }

    /// A secret that may be absent; it is never shown.
    pub fn secret(&mut self, key: &str, help: &'static str) -> Option<SecretString> {
        let found = self.look_up(key).filter(|(text, _)| !text.is_empty());
        let origin = found.as_ref().map_or_else(|| "default".to_owned(), |(_, origin)| origin.clone());
        self.note(key, if found.is_some() { "(hidden)" } else { "(none)" }.into(), origin, help);
        found.map(|(text, _)| text.into())
    }

    /// A URL whose user, password and query are not shown.
    pub fn url(&mut self, key: &str, default: &str, help: &'static str) -> SecretString {
        let (text, origin) = self.look_up(key).unwrap_or_else(|| (default.to_owned(), "default".to_owned()));
        self.note(key, without_query(&without_userinfo(&text)), origin, help);
        text.into()
    }

    /// The names of the tables right under `prefix` in the file.
    pub fn tables(&self, prefix: &str) -> BTreeSet<String> {
        let prefix = format!("{prefix}.");
        let filled = self.file.keys().filter_map(|key| Some(key.strip_prefix(&prefix)?.split_once('.')?.0));
        let empty = self.empty_tables.iter().filter_map(|name| name.strip_prefix(&prefix));
        filled.chain(empty).map(str::to_owned).collect()
    }

    /// All keys below `prefix`, in the file or in variables, and their texts, taken as they are:
    /// settings of a library that we hand through. Their names have dots and no underscores, so a
    /// variable's underscores are dots.
    pub fn rest(&mut self, prefix: &str, help: &'static str) -> BTreeMap<String, String> {
        let start = format!("{prefix}.");
        let variables = format!("{}_", Self::variable(prefix));
        let in_file = self.file.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(&start)?.to_owned(), (text_of(value)?, "file".to_owned())))
        });
        let in_variables = self.variables.iter().filter_map(|(name, text)| {
            let key = name.strip_prefix(&variables)?.to_lowercase().replace('_', ".");
            Some((key, (text.clone(), name.clone())))
        });
        let found: BTreeMap<String, (String, String)> = in_file.chain(in_variables).collect();
        for (key, (text, origin)) in &found {
            // A misspelt secret is one, too: only what is known to be none is shown.
            let harmless =
                key.ends_with(".ms") || key.ends_with(".bytes") || HARMLESS.contains(&key.as_str());
            let shown = if harmless { text.clone() } else { "(hidden)".to_owned() };
            self.note(&format!("{start}{key}"), shown, origin.clone(), help);
        }
        found.into_iter().map(|(key, (text, _))| (key, text)).collect()
    }

    /// Notes a mistake that only the service can see, as where two settings do not fit together.
    pub fn mistake(&mut self, text: impl Into<String>) {
        self.mistakes.push(text.into());
    }

    /// Ends the asking.
    ///
    /// # Errors
    /// All mistakes, keys of the file that nothing asked for among them.
    pub fn finish(&mut self) -> Result<(), Mistakes> {
        for key in self.file.keys().filter(|key| !self.asked.contains_key(*key)) {
            let near = nearest(key, self.asked.keys());
            self.mistakes.push(match near {
                Some(near) => format!("{key}: no such setting; did you mean {near}?"),
                None => format!("{key}: no such setting"),
            });
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(Mistakes(std::mem::take(&mut self.mistakes))) }
    }

    /// Variables with our prefix that no setting asked for: not an error, since Kubernetes sets
    /// such variables by itself, but worth a warning.
    pub fn unknown_variables(&self) -> Vec<String> {
        let asked: BTreeSet<String> = self.asked.keys().map(|key| Self::variable(key)).collect();
        self.variables.keys().filter(|name| !asked.contains(*name)).cloned().collect()
    }

    /// The effective values, where each comes from and what it means.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, asked) in &self.asked {
            let variable = Self::variable(key);
            let _ = writeln!(
                text,
                "# {}\n# {variable} ({})\n{key} = {}\n",
                asked.help, asked.origin, asked.shown
            );
        }
        text
    }

    fn look_up(&self, key: &str) -> Option<(String, String)> {
        let variable = Self::variable(key);
        if let Some(text) = self.variables.get(&variable) {
            return Some((text.clone(), variable));
        }
        let value = self.file.get(key)?;
        Some((text_of(value)?, "file".to_owned()))
    }

    fn note(&mut self, key: &str, shown: String, origin: String, help: &'static str) {
        self.asked.insert(key.to_owned(), Asked { shown, origin, help });
    }
}

fn flatten(prefix: &str, value: Value, flat: &mut BTreeMap<String, Value>, empty: &mut BTreeSet<String>) {
    match value.kind {
        ValueKind::Table(table) if table.is_empty() => {
            empty.insert(prefix.to_owned());
        }
        ValueKind::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&key, value, flat, empty);
            }
        }
        _ => {
            flat.insert(prefix.to_owned(), value);
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    if let ValueKind::Array(values) = &value.kind {
        let texts: Option<Vec<String>> = values.iter().map(text_of).collect();
        return texts.map(|texts| texts.join(","));
    }
    value.clone().into_string().ok()
}

/// An error of the TOML reader without the lines that it quotes: they may hold a secret.
fn without_source(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|')
    };
    let lines: Vec<&str> = error.lines().filter(|line| !quoted(line)).collect();
    lines.join("; ")
}

/// A URL as it may be shown: without user and password.
pub fn without_userinfo(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://(hidden)@{}", &url[..scheme], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

fn without_query(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(rest, _)| format!("{rest}?(hidden)"))
}

/// The asked key that is most like one that does not exist.
fn nearest<'a>(key: &str, asked: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    asked
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn settings(toml: &str, variables: &[(&str, &str)]) -> Settings {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        Settings::new(Some(file.path()), variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
        let mut s = settings("[http]\nport = 1\nhost = \"a\"\n", &[("TUTTI_HTTP_PORT", "2")]);
        assert_eq!(s.get("http.port", 0u16, "port", |_| Ok(())), 2);
        assert_eq!(s.get("http.host", "x".to_owned(), "host", |_| Ok(())), "a");
        assert_eq!(s.get("http.path", "/".to_owned(), "path", |_| Ok(())), "/");
        s.finish().unwrap();
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let mut s = settings("[http]\nport = \"x\"\nprot = 3\n", &[("TUTTI_HTTP_SIZE", "0")]);
        s.get("http.port", 1u16, "a port", |_| Ok(()));
        s.get("http.size", 1u16, "a size", |n| if *n == 0 { Err("must be above 0") } else { Ok(()) });
        let mistakes = s.finish().unwrap_err().to_string();
        assert!(mistakes.contains("http.port = \"x\" (file)"), "{mistakes}");
        assert!(mistakes.contains("http.size = \"0\" (TUTTI_HTTP_SIZE): must be above 0"), "{mistakes}");
        assert!(mistakes.contains("http.prot: no such setting; did you mean http.port?"), "{mistakes}");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_mistake() {
        let mut s = Settings::new(Some(Path::new("/nonexistent/tutti.toml")), []);
        assert!(s.finish().unwrap_err().to_string().contains("/nonexistent/tutti.toml"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let variables = [("TUTTI_AUTH_SECRET", "hush"), ("TUTTI_REDIS_URL", "redis://u:hush@h:1/0?p=hush")];
        let mut s = settings("", &variables);
        assert!(s.secret("auth.secret", "a secret").is_some());
        s.url("redis.url", "redis://127.0.0.1", "the Redis");
        let shown = s.describe();
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("redis://(hidden)@h:1/0?(hidden)"), "{shown}");
    }

    #[test]
    fn what_is_handed_through_comes_from_the_file_and_from_variables() {
        let variables = [("TUTTI_KAFKA_PROPERTIES_SASL_PASSWORD", "hush")];
        let mut s =
            settings("[kafka.properties]\n\"sasl.username\" = \"u\"\nsasl.password = \"x\"\n", &variables);
        let found = s.rest("kafka.properties", "handed through");
        let expected = [("sasl.password", "hush"), ("sasl.username", "u")];
        assert!(found.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{found:?}");
        assert!(!s.describe().contains("hush"));
        s.finish().unwrap();
    }

    #[test]
    fn a_table_counts_also_where_it_is_empty() {
        let mut s = settings("[routes.a]\n[routes.b]\ntopic = \"t\"\n", &[]);
        assert!(s.tables("routes").iter().eq(["a", "b"]));
        s.get("routes.b.topic", String::new(), "topic", |_| Ok(()));
        s.finish().unwrap();
    }

    #[test]
    fn an_error_of_the_file_does_not_quote_it() {
        for toml in [
            "[auth]\nhs256_secret = hush-hush\n",
            "[auth]\nhs256_secret = \"hush-hush\n",
            "url = redis://u:hush@h:1",
        ] {
            let mistakes = settings(toml, &[]).finish().unwrap_err().to_string();
            assert!(!mistakes.contains("hush"), "{mistakes}");
            assert!(mistakes.contains("line"), "{mistakes}");
        }
    }

    #[test]
    fn lists_come_as_arrays_or_with_commas() {
        let mut s = settings("a = [\"x\", \"y\"]", &[("TUTTI_B", "u, v")]);
        assert_eq!(s.list("a", &[], "a"), ["x", "y"]);
        assert_eq!(s.list("b", &[], "b"), ["u", "v"]);
        assert_eq!(s.list("c", &["w"], "c"), ["w"]);
    }
}
