use std::io::Write as _;
use std::path::Path;

use super::Settings;

fn settings(toml: &str, variables: &[(&str, &str)]) -> Settings {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    Settings::new(Some(file.path()), variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
    let mut s = settings("[http]\nport = 1\nhost = \"a\"\n", &[("TUTTI_HTTP_PORT", "2")]);
    assert_eq!(s.get("http.port", 0u16, "port"), 2);
    assert_eq!(s.get("http.host", "x".to_owned(), "host"), "a");
    assert_eq!(s.get("http.path", "/".to_owned(), "path"), "/");
    s.finish().unwrap();
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mut s = settings("[http]\nport = \"x\"\nprot = 3\n", &[("TUTTI_HTTP_SIZE", "0")]);
    s.get("http.port", 1u16, "a port");
    s.number("http.size", 1u16, 1.., "a size");
    let mistakes = s.finish().unwrap_err().to_string();
    assert!(mistakes.contains("http.port = \"x\" (file)"), "{mistakes}");
    assert!(mistakes.contains("http.size = \"0\" (TUTTI_HTTP_SIZE): must be at least 1"), "{mistakes}");
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
    s.get("routes.b.topic", String::new(), "topic");
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

#[test]
fn a_number_outside_of_its_range_is_a_mistake_that_names_the_range() {
    let given = [("TUTTI_A", "0"), ("TUTTI_B", "11"), ("TUTTI_C", "1"), ("TUTTI_D", "10")];
    let mut s = settings("", &given);
    s.number("a", 5u32, 1..=10, "a number");
    s.number("b", 5u32, 1..=10, "a number");
    s.number("c", 5u32, 1..=10, "a number");
    s.number("d", 5u32, 1..=10, "a number");
    let mistakes = s.finish().unwrap_err().0;
    let expected = ["a = \"0\" (TUTTI_A): must be 1 to 10", "b = \"11\" (TUTTI_B): must be 1 to 10"];
    assert_eq!(mistakes, expected);
}

#[test]
fn a_choice_is_the_value_that_its_word_names_and_any_other_word_is_a_mistake() {
    let mut s = settings("a = \"two\"\nb = \"three\"\nc = \"\"", &[]);
    let choices = [("one", 1), ("two", 2), ("other", 0)];
    assert_eq!(s.choice("a", "one", &choices, "a word"), 2);
    assert_eq!(s.choice("b", "one", &choices, "a word"), 1);
    assert_eq!(s.choice("c", "one", &choices[..1], "a word"), 1);
    assert_eq!(s.choice("d", "other", &choices, "a word"), 0);
    let mistakes = s.finish().unwrap_err().0;
    let expected = ["b = \"three\" (file): must be one, two or other", "c = \"\" (file): must be one"];
    assert_eq!(mistakes, expected);
}
