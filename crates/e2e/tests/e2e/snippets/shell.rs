//! Snippets for the shell: all can be parsed, and those that start with `make up` at hand are run against `tutti up`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tutti::local::Owned;
use tutti_e2e::eventually;
use tutti_e2e::service::program;

use super::pages::{self, Snippet, root};
use crate::up::port_base;

/// Returns what is wrong with a snippet, by the parser of its language. Transcripts (`console`) are commands behind `$ `,
/// and their output.
fn fault(snippet: &Snippet, folder: &Path) -> Option<String> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::write(&path, &snippet.code).unwrap();
        path
    };
    let mut command = match snippet.language.as_str() {
        "sh" => {
            let mut bash = Command::new("bash");
            bash.arg("-n").arg(file("snippet.sh"));
            bash
        }
        "console" => {
            std::fs::write(folder.join("snippet.sh"), commands(&snippet.code)).unwrap();
            let mut bash = Command::new("bash");
            bash.arg("-n").arg(folder.join("snippet.sh"));
            bash
        }
        "js" => {
            let mut node = Command::new("node");
            node.arg("--check").arg(file("snippet.mjs"));
            node
        }
        // All of them are for ingest.
        "toml" => {
            let mut ingest = Command::new(program("tutti-ingest"));
            ingest.arg("--check-config").arg("--config").arg(file("snippet.toml"));
            ingest
        }
        "json" => {
            return serde_json::from_str::<serde_json::Value>(&snippet.code)
                .err()
                .map(|error| error.to_string());
        }
        "text" | "yaml" => return None,
        other => return Some(format!("{other:?} is no language of snippets")),
    };
    let output = command.output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns the commands of a transcript, with the lines that go on behind a backslash.
fn commands(transcript: &str) -> String {
    let (mut commands, mut goes_on) = (String::new(), false);
    for line in transcript.lines() {
        let command = if goes_on { Some(line) } else { line.strip_prefix("$ ") };
        goes_on = command.is_some_and(|command| command.ends_with('\\'));
        commands.extend(command.into_iter().flat_map(|command| [command, "\n"]));
    }
    commands
}

#[test]
fn every_snippet_of_the_documents_can_be_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let snippets = pages::all();
    let languages = ["sh", "console", "js", "toml", "json"];
    for language in languages {
        assert!(snippets.iter().any(|snippet| snippet.language == language), "no document has {language}");
    }
    let faults: Vec<String> = snippets
        .iter()
        .filter_map(|snippet| {
            Some(format!("{}:{}: {}", snippet.page, snippet.line, fault(snippet, folder.path())?))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_commands_of_a_transcript_are_told_from_their_output() {
    assert_eq!(commands("$ a \\\n    -b\nout\n$ c\n$out\n"), "a \\\n    -b\nc\n");
}

/// What a reader has: the tool by its name, and a program that draws UUIDs.
const BEFORE: &str = "set -euo pipefail
tutti() { \"$TOOL\" \"$@\"; }
uuidgen() { cat /proc/sys/kernel/random/uuid; }
";

/// A `tutti up` on ports of its own, and the folder of its log.
struct Up {
    base: u16,
    folder: tempfile::TempDir,
    _process: Owned,
}

impl Up {
    async fn start() -> Self {
        let (base, folder) = (port_base(), tempfile::tempdir().unwrap());
        let log = folder.path().join("up.log");
        let arguments = ["up".into(), "--port-base".into(), base.to_string().into()];
        let command: Vec<_> = std::iter::once(program("tutti").into_os_string()).chain(arguments).collect();
        let process = Owned::start_with(&command, "KILL", &log, BTreeMap::new()).unwrap();
        eventually("it is ready", async || std::fs::read_to_string(&log).unwrap().contains("Ready.")).await;
        Self { base, folder, _process: process }
    }

    /// Runs a snippet as it stands, but for the ports, until its output has all of `wanted`.
    async fn run(&self, name: &str, code: &str, wanted: &[&str]) {
        let ports = [("8080", 0), ("8081", 1), ("9092", 2)];
        let here = ports.iter().fold(code.to_owned(), |code, (port, at)| {
            code.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", self.base + at))
        });
        let (script, log) =
            (self.folder.path().join(format!("{name}.sh")), self.folder.path().join(format!("{name}.log")));
        std::fs::write(&script, format!("{BEFORE}cd {}\n{here}", root().display())).unwrap();
        let tool = [("TOOL".to_owned(), program("tutti").to_str().unwrap().to_owned())];
        let command = ["bash".as_ref(), script.as_os_str()];
        let _running = Owned::start_with(&command, "KILL", &log, tool).unwrap();
        let said = || std::fs::read_to_string(&log).unwrap();
        let has_all = || wanted.iter().all(|text| said().contains(text));
        eventually(&format!("{name} shows {wanted:?}"), async || has_all()).await;
    }
}

#[tokio::test]
async fn the_snippets_of_the_readme_do_each_job() {
    let up = Up::start().await;
    let snippets = pages::of_page("README.md");
    let jobs: Vec<&str> = snippets
        .iter()
        .filter(|snippet| snippet.heading == "One snippet for each job" && snippet.language == "sh")
        .map(|snippet| snippet.code.as_str())
        .collect();
    let [map, room, inbox, topic] = jobs[..] else { panic!("{} jobs have a snippet", jobs.len()) };
    up.run("map", map, &["event: status", "event: liveMapLocation", "\"mediaId\":"]).await;
    up.run("room", room, &["event: queueAdmitted", "\"pass\":"]).await;
    up.run("inbox", inbox, &["event: notification", "\"title\":\"Shipped\""]).await;
    up.run("topic", topic, &["event: message", "\"room\":\"demo\"", "\"type\":\"joined\""]).await;
}

#[tokio::test]
async fn the_snippets_of_the_guides_put_a_device_on_the_map_notify_over_kafka_and_check_a_lottery() {
    let up = Up::start().await;
    let positions = pages::under("docs/guides/map.md", "Write positions", "sh");
    let (sent, removed) = positions.split_once("\necho 'me:'").expect("it sends a position, and removes it");
    let read =
        "curl -s http://127.0.0.1:8081/v1/map/locations | grep -o '\"mediaId\":\"me\"' && break || sleep 0.2";
    up.run("position", &format!("{sent}\nwhile true; do {read}; done"), &["\"mediaId\":\"me\""]).await;
    let gone = "while curl -s http://127.0.0.1:8081/v1/map/locations | grep -q '\"mediaId\":\"me\"'; do sleep 0.2; done";
    up.run("removal", &format!("echo 'me:'{removed}\n{gone}\necho it is gone"), &["it is gone"]).await;
    // A record that is no removal is rejected, and the device goes all the same once its position is old.
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", up.base + 4)).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let mut rejected = metrics.lines().filter(|line| line.starts_with("tutti_ingest_rejected_records_total"));
    assert!(rejected.all(|line| line.ends_with(" 0")), "all records are valid: {metrics}");
    let notification = pages::under("docs/reference/kafka.md", "Notifications", "sh");
    let follow = "curl -N -H \"Authorization: Bearer $(tutti token --sub 7)\" \
                  \"http://127.0.0.1:8080/v1/inbox/stream?since=oldest\"";
    up.run("kafka", &format!("{notification}\n{follow}"), &["\"id\":\"hello-1\"", "\"title\":\"Hello\""])
        .await;
    let lottery = pages::under("docs/guides/waiting-room.md", "The lottery", "sh");
    up.run("lottery", &lottery, &["  -\n", "\n1\n"]).await;
}
