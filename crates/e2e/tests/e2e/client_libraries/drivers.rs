//! Runs a client on several streams, and reads what it was shown. Each client prints one line of JSON for each event.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use eventsource_client::{Client as _, ClientBuilder, SSE};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tutti::local::{Owned, find};
use tutti_e2e::target_folder;
use tutti_e2e::transport::ReqwestTransport;
use tutti_load::now_ms;

use super::table::{Driver, Library, folder};

/// The installed programs and libraries.
pub(super) struct Tools {
    node: PathBuf,
    python: PathBuf,
    go: PathBuf,
}

impl Tools {
    /// Installs the programs and libraries that an earlier run has not installed.
    ///
    /// # Panics
    /// If npm, Python's venv or Go are missing, or their registries cannot be reached.
    pub(super) fn install() -> Self {
        let base = target_folder().join("clients");
        let (node, python, go) = (base.join("node"), base.join("python"), base.join("follow"));
        std::fs::create_dir_all(&node).unwrap();
        for file in ["package.json", "package-lock.json", "follow.mjs"] {
            std::fs::copy(folder().join("node").join(file), node.join(file)).unwrap();
        }
        once(&node, &folder().join("node/package-lock.json"), || {
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            run(Command::new("npm").args(arguments).current_dir(&node), "npm");
        });
        let requirements = folder().join("python/requirements.txt");
        once(&python, &requirements, || {
            let make = ["-m", "venv", "--clear"].map(OsString::from);
            run(Command::new("python3").args(make).arg(&python), "python3 python3-venv");
            let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
            run(Command::new(python.join("bin/python")).args(arguments).arg(&requirements), "python3-venv");
        });
        let build = ["build", "-mod=readonly", "-o"];
        let source = folder().join("go");
        run(
            Command::new("go").args(build).arg(&go).arg(".").current_dir(source),
            "golang-go (1.22 or newer)",
        );
        Self { node: node.join("follow.mjs"), python: python.join("bin/python"), go }
    }

    /// Starts the reverse proxy of Go's standard library.
    pub(super) fn proxy(&self, listen: &str, upstream: &str, log: &Path) -> Owned {
        Owned::start(
            &[self.go.as_os_str(), "proxy".as_ref(), listen.as_ref(), upstream.as_ref()],
            "KILL",
            log,
        )
        .unwrap()
    }
}

/// Installs into a folder, unless what is there was installed from the same file.
fn once(made: &Path, of: &Path, install: impl FnOnce()) {
    let (stamp, wanted) = (made.join("installed"), std::fs::read(of).unwrap());
    if std::fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return;
    }
    install();
    std::fs::write(stamp, wanted).unwrap();
}

fn run(command: &mut Command, package: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{error}: apt-get install {package}"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{command:?}, of {package}: {}", said.join("\n"));
}

/// A stream for a client to follow.
pub(super) struct Stream {
    pub(super) name: &'static str,
    pub(super) url: String,
    /// The token. Empty text is no token.
    pub(super) token: String,
}

/// A client that follows streams.
pub(super) struct Running {
    pub(super) library: &'static Library,
    log: PathBuf,
    shown: Mutex<(u64, Shown)>,
    _process: Option<Owned>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Running {
    /// Starts a client whose log is kept in the folder `at`. A browser opens the page with this URL.
    pub(super) fn start(
        library: &'static Library,
        streams: Vec<Stream>,
        tools: &Tools,
        at: &Path,
        page: &str,
    ) -> Self {
        let name: String = library.name.chars().filter(char::is_ascii_alphanumeric).collect();
        let log = at.join(format!("{name}.log"));
        let mut command: Vec<OsString> = match library.driver {
            Driver::Node(which) => vec!["node".into(), tools.node.clone().into(), which.into()],
            Driver::Python(which) | Driver::PythonBehindGo(which) => {
                vec![tools.python.clone().into(), folder().join("python/follow.py").into(), which.into()]
            }
            Driver::Go(which) => vec![tools.go.clone().into(), which.into()],
            Driver::Chromium => browser(page, &at.join(name), &streams),
            Driver::Rust => Vec::new(),
        };
        let mut running = Self { library, log, shown: Mutex::default(), _process: None, tasks: Vec::new() };
        match library.driver {
            Driver::Rust => {
                let log = File::options().create(true).append(true).open(&running.log).unwrap();
                let log = Arc::new(Mutex::new(log));
                running.tasks =
                    streams.into_iter().map(|stream| tokio::spawn(follow(stream, log.clone()))).collect();
                return running;
            }
            Driver::Chromium => {}
            _ => command.extend(
                streams
                    .into_iter()
                    .flat_map(|stream| [stream.name.into(), stream.url.into(), stream.token.into()]),
            ),
        }
        let variables = ["no_proxy", "NO_PROXY"].map(|name| (name.to_owned(), "127.0.0.1".to_owned()));
        running._process =
            Some(Owned::start_with(&command, "KILL", &running.log, BTreeMap::from(variables)).unwrap());
        running
    }

    /// Reads what the client was shown since the last call, and passes everything it was shown to `look`.
    pub(super) fn shown<T>(&self, look: impl FnOnce(&Shown) -> T) -> T {
        let mut guard = self.shown.lock().unwrap();
        let (read, shown) = &mut *guard;
        let mut text = String::new();
        let mut log = File::open(&self.log).unwrap();
        log.seek(SeekFrom::Start(*read)).unwrap();
        log.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        *read += whole as u64;
        for line in text[..whole].lines() {
            shown.take(line);
        }
        look(shown)
    }
}

/// What a client was shown.
#[derive(Default)]
pub(super) struct Shown {
    lines: Vec<Value>,
    said: Vec<String>,
}

impl Shown {
    fn take(&mut self, line: &str) {
        // Chromium puts what a page logs between quotation marks, followed by the place that logged it.
        let logged =
            line.split_once(r#""{"stream""#).and_then(|(_, rest)| rest.rsplit_once(r#"", source: "#));
        let logged = logged.map(|(rest, _)| format!(r#"{{"stream"{rest}"#));
        match serde_json::from_str::<Value>(logged.as_deref().unwrap_or(line)) {
            Ok(value) if value["stream"].is_string() => self.lines.push(value),
            _ => self.said.push(line.to_owned()),
        }
    }

    fn of<'a>(&'a self, stream: &'a str, key: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["stream"] == stream && !line[key].is_null())
    }

    /// Returns the events of a stream.
    pub(super) fn events<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = &'a Value> {
        self.of(stream, "event")
    }

    /// Returns the events of all streams.
    pub(super) fn all_events(&self) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(|line| !line["event"].is_null())
    }

    /// Returns the events of one name on a stream.
    pub(super) fn named<'a>(&'a self, stream: &'a str, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events(stream).filter(move |line| line["event"] == name)
    }

    /// Returns the errors of a stream.
    pub(super) fn errors<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = &'a str> {
        self.of(stream, "error").filter_map(|line| line["error"].as_str())
    }

    /// Whether the client has given a stream up.
    pub(super) fn is_over(&self, stream: &str) -> bool {
        self.of(stream, "closed").next().is_some()
    }

    /// Returns what the client prints when it opens a stream: in general, the content coding.
    pub(super) fn openings<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = &'a str> {
        let opened = self.lines.iter().filter(move |line| line["stream"] == stream);
        opened.filter_map(|line| Some(line.as_object()?.get("open")?.as_str().unwrap_or_default()))
    }

    /// Returns the last lines, and the last output that is not a line of JSON, for the report of a failure.
    pub(super) fn end(&self) -> String {
        let lines = self.lines.iter().rev().take(20).rev().map(Value::to_string);
        lines.chain(self.said.iter().rev().take(5).rev().cloned()).collect::<Vec<_>>().join("\n")
    }
}

/// Returns the data of an event as JSON, or null if it is not JSON.
pub(super) fn data(line: &Value) -> Value {
    serde_json::from_str(line["data"].as_str().unwrap_or_default()).unwrap_or_default()
}

fn browser(page: &str, profile: &Path, streams: &[Stream]) -> Vec<OsString> {
    let chromium = find("chromium").expect("apt-get install chromium");
    let streams: Vec<_> = streams.iter().map(|stream| [stream.name, &stream.url, &stream.token]).collect();
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // nginx has a self-signed certificate.
        "--ignore-certificate-errors",
        "--enable-logging=stderr",
        &profile,
    ];
    let page = format!("{page}#{}", json!(streams).to_string().replace('"', "%22"));
    [chromium.into()].into_iter().chain(arguments.map(OsString::from)).chain([page.into()]).collect()
}

/// Follows a stream with the crate of LaunchDarkly, which reconnects by itself.
async fn follow(Stream { name, url, token }: Stream, log: Arc<Mutex<File>>) {
    let tell = |mut what: Value| {
        what["stream"] = name.into();
        what["at"] = now_ms().into();
        writeln!(log.lock().unwrap(), "{what}").unwrap();
    };
    let mut builder = ClientBuilder::for_url(&url).unwrap();
    if !token.is_empty() {
        builder = builder.header("authorization", &format!("Bearer {token}")).unwrap();
    }
    let client = builder.build_with_transport(ReqwestTransport);
    let mut stream = client.stream();
    while let Some(next) = stream.next().await {
        match next {
            Ok(SSE::Connected(details)) => {
                let coding = details.response().get_header_value("content-encoding").ok().flatten();
                tell(json!({ "open": coding }));
            }
            Ok(SSE::Event(event)) => {
                let is_end = event.event_type == "end";
                tell(json!({ "event": event.event_type, "data": event.data, "id": event.id }));
                if is_end {
                    break;
                }
            }
            Ok(SSE::Comment(_)) => {}
            Err(error) => tell(json!({ "error": error.to_string() })),
        }
    }
    tell(json!({ "closed": true }));
}
