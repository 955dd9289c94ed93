//! The behaviour of each client. The test checks it, and docs/reference/clients.md shows it as a table.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A client of streams.
pub(super) struct Library {
    /// The name in the documentation. `{}` stands for the version.
    pub(super) name: &'static str,
    /// The lock file that pins the version of a client.
    pub(super) pinned: Pinned,
    /// The program that follows streams with the library.
    pub(super) driver: Driver,
    /// How the client resumes.
    pub(super) resume: Resume,
    /// What a client does when the edge ends a stream.
    pub(super) end: End,
    /// How long the client stays away when the edge has no room.
    pub(super) overload: Wait,
    /// What a client does at a status of 401.
    pub(super) refusal: Refusal,
    /// The content codings in which the client may get the map. Empty text is no coding.
    pub(super) codings: &'static [&'static str],
}

/// The file that pins a version, and the name of the package there.
pub(super) enum Pinned {
    Npm(&'static str),
    PyPi(&'static str),
    Go(&'static str),
    Cargo(&'static str),
    /// The version that the machine has.
    Machine,
}

/// A program in `clients/`, or this test itself.
#[derive(Clone, Copy)]
pub(super) enum Driver {
    Node(&'static str),
    Python(&'static str),
    /// A Python program behind the reverse proxy of Go's standard library.
    PythonBehindGo(&'static str),
    Go(&'static str),
    Rust,
    /// Chromium, behind nginx with HTTP/2.
    Chromium,
}

pub(super) enum Resume {
    Header,
    Query,
    Loop,
}

pub(super) enum End {
    ComesBack,
    /// The client reconnects only if the program has this line.
    StopsBut(&'static str),
}

pub(super) enum Wait {
    Retry,
    /// The least and the largest percentage of it.
    Percent(u32, u32),
    Loop,
}

pub(super) enum Refusal {
    /// The client shows the status to the program, and does not reconnect.
    Stops,
    /// The client asks again and again. The text says what it shows of the reason.
    AsksAgain(&'static str),
}

const LOOP: End = End::StopsBut("a loop around the request");

pub(super) const LIBRARIES: [Library; 14] = [
    Library {
        name: "browsers' `EventSource`, through nginx with HTTP/2",
        pinned: Pinned::Machine,
        driver: Driver::Chromium,
        resume: Resume::Header,
        end: End::ComesBack,
        overload: Wait::Retry,
        refusal: Refusal::AsksAgain("a page sees an `error` without a status, as at a 502"),
        codings: &["zstd"],
    },
    Library {
        name: "`eventsource` {} (npm)",
        pinned: Pinned::Npm("eventsource"),
        driver: Driver::Node("eventsource"),
        resume: Resume::Header,
        end: End::ComesBack,
        overload: Wait::Retry,
        refusal: Refusal::Stops,
        codings: &["gzip", "zstd"],
    },
    Library {
        name: "`event-source-polyfill` {} (npm)",
        pinned: Pinned::Npm("event-source-polyfill"),
        driver: Driver::Node("event-source-polyfill"),
        resume: Resume::Query,
        end: End::ComesBack,
        overload: Wait::Retry,
        refusal: Refusal::Stops,
        codings: &["gzip", "zstd"],
    },
    Library {
        name: "`@microsoft/fetch-event-source` {} (npm)",
        pinned: Pinned::Npm("@microsoft/fetch-event-source"),
        driver: Driver::Node("fetch-event-source"),
        resume: Resume::Header,
        end: End::StopsBut("`onclose() { throw new Error(\"ended\"); }`"),
        overload: Wait::Retry,
        refusal: Refusal::AsksAgain("`onerror` speaks of the content type"),
        codings: &["gzip", "zstd"],
    },
    Library {
        name: "`eventsource-client` {} (Rust, LaunchDarkly)",
        pinned: Pinned::Cargo("eventsource-client"),
        driver: Driver::Rust,
        resume: Resume::Header,
        end: End::ComesBack,
        overload: Wait::Percent(50, 100),
        refusal: Refusal::Stops,
        codings: &[""],
    },
    Library {
        name: "`httpx-sse` {} (Python, with `zstandard`)",
        pinned: Pinned::PyPi("httpx-sse"),
        driver: Driver::Python("httpx-sse"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "`httpx-sse` {} (Python, without it)",
        pinned: Pinned::PyPi("httpx-sse"),
        driver: Driver::Python("httpx-sse-without-zstandard"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "`sseclient-py` {} (Python, with `requests`)",
        pinned: Pinned::PyPi("sseclient-py"),
        driver: Driver::Python("sseclient-py"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "`aiohttp` {} (Python)",
        pinned: Pinned::PyPi("aiohttp"),
        driver: Driver::Python("aiohttp"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "`r3labs/sse` {} (Go)",
        pinned: Pinned::Go("github.com/r3labs/sse/v2"),
        driver: Driver::Go("r3labs"),
        resume: Resume::Header,
        end: End::StopsBut("`for` around `Subscribe`, on one `Client`"),
        overload: Wait::Loop,
        refusal: Refusal::AsksAgain("`ReconnectNotify` has it, if set"),
        codings: &["gzip"],
    },
    Library {
        name: "`tmaxmax/go-sse` {} (Go)",
        pinned: Pinned::Go("github.com/tmaxmax/go-sse"),
        driver: Driver::Go("tmaxmax"),
        resume: Resume::Header,
        end: End::ComesBack,
        overload: Wait::Percent(50, 150),
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "Go's `net/http`",
        pinned: Pinned::Machine,
        driver: Driver::Go("net/http"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "`curl --compressed`",
        pinned: Pinned::Machine,
        driver: Driver::Python("curl"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        codings: &["gzip"],
    },
    Library {
        name: "`curl`, through Go's `httputil.ReverseProxy`",
        pinned: Pinned::Machine,
        driver: Driver::PythonBehindGo("plain-curl"),
        resume: Resume::Loop,
        end: LOOP,
        overload: Wait::Loop,
        refusal: Refusal::Stops,
        // The proxy itself asks for gzip, and decompresses it.
        codings: &[""],
    },
];

impl Library {
    /// Returns the least percentage of `retry` for which the client stays away.
    pub(super) fn least_wait(&self) -> u32 {
        match self.overload {
            Wait::Retry | Wait::Loop => 100,
            Wait::Percent(least, _) => least,
        }
    }

    fn version(&self) -> String {
        let line_after = |file: &str, start: &str| {
            let text = std::fs::read_to_string(folder().join(file)).unwrap();
            let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with(start));
            lines.next().map(str::to_owned).zip(lines.next().map(str::to_owned))
        };
        match self.pinned {
            Pinned::Npm(package) => {
                let file = std::fs::read_to_string(folder().join("node/package.json")).unwrap();
                let file: Value = serde_json::from_str(&file).unwrap();
                file["dependencies"][package].as_str().unwrap().to_owned()
            }
            Pinned::PyPi(package) => {
                let (line, _) = line_after("python/requirements.txt", &format!("{package}==")).unwrap();
                line.replace(&format!("{package}=="), "")
            }
            Pinned::Go(package) => {
                let (line, _) = line_after("go/go.mod", package).unwrap();
                line.replace(&format!("{package} v"), "")
            }
            Pinned::Cargo(package) => {
                let (_, line) = line_after("../../../Cargo.lock", &format!("name = \"{package}\"")).unwrap();
                line.replace("version = ", "").replace('"', "")
            }
            Pinned::Machine => String::new(),
        }
    }

    /// Returns the row of the library in the table of the documentation.
    pub(super) fn row(&self) -> String {
        let resume = match self.resume {
            Resume::Header => "by itself, header `Last-Event-ID`".to_owned(),
            Resume::Query => "by itself, query `lastEventId`".to_owned(),
            Resume::Loop => "your loop sends `Last-Event-ID`".to_owned(),
        };
        let end = match self.end {
            End::ComesBack => "comes back".to_owned(),
            End::StopsBut(line) => format!("stops; comes back with {line}"),
        };
        let overload = match self.overload {
            Wait::Retry => "waits `retry`".to_owned(),
            Wait::Percent(least, most) => format!("waits {least} to {most} % of `retry`"),
            Wait::Loop => "your loop waits `retry`".to_owned(),
        };
        let refusal = match self.refusal {
            Refusal::Stops => "shows the status, and stops".to_owned(),
            Refusal::AsksAgain(shown) => format!("asks again for ever: {shown}"),
        };
        let codings: Vec<&str> =
            self.codings.iter().map(|coding| if coding.is_empty() { "none" } else { coding }).collect();
        let (name, coding) = (self.name.replace("{}", &self.version()), codings.join(" or "));
        format!("| {name} | {resume} | {end} | {overload} | {refusal} | {coding} |")
    }
}

/// Returns the folder of the client programs.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

#[test]
fn the_documentation_of_clients_says_what_clients_are_tested_for() {
    let page = folder().join("../../../docs/reference/clients.md");
    let text = std::fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let tested = LIBRARIES.each_ref().map(Library::row);
    assert_eq!(rows, tested, "the rows must be:\n{}", tested.join("\n"));
}
