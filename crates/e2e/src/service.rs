//! Services of Tutti as processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tutti::local::Owned;
use tutti::metrics::Families;

use crate::{client, eventually, free_port, target_folder};

/// Returns the path of a program of the workspace, or of an example as `examples/NAME`. The first call builds all
/// programs, unless they are up to date.
///
/// # Panics
/// If they cannot be built.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bins", "--examples", "--manifest-path"])
            .arg(manifest)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the services build");
    });
    target_folder().join("debug").join(name)
}

/// A service that runs as a process.
pub struct Service {
    process: Option<Owned>,
    name: &'static str,
    admin: u16,
    variables: BTreeMap<String, String>,
    log: PathBuf,
}

impl Service {
    /// Starts a service. Its log is appended to a file in `folder`.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn start(name: &'static str, folder: &Path, variables: BTreeMap<String, String>) -> Self {
        let admin = free_port();
        let log = folder.join(format!("{name}-{admin}.log"));
        let mut service = Self { process: None, name, admin, variables, log };
        service.run();
        service
    }

    /// Sets another value of a setting, from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.variables.insert(variable(key), value.to_owned());
    }

    /// Starts the service, or starts it again.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn run(&mut self) {
        let mut variables = self.variables.clone();
        variables.insert("TUTTI_ADMIN_LISTEN".into(), format!("127.0.0.1:{}", self.admin));
        variables.entry("TUTTI_LOG_LEVEL".into()).or_insert("info".into());
        let program = program(self.name);
        self.process = Some(Owned::start_with(&[program], "KILL", &self.log, variables).expect("a shell"));
    }

    /// Kills the service with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Returns the admin port, which listens on 127.0.0.1.
    pub fn admin_port(&self) -> u16 {
        self.admin
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// If the service was killed.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the service was killed.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("our own process");
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    }

    /// Returns the exit code. It is `None` while the process runs, or if a signal ended it.
    pub fn exit_code(&self) -> Option<i32> {
        if self.is_running() {
            return None;
        }
        // The shell that started the process has not waited for it yet, so the kernel keeps its exit status.
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        let status: i32 = state.split_whitespace().next_back()?.parse().ok()?;
        (status & 0x7f == 0).then_some(status >> 8)
    }

    /// Returns the resident memory, in bytes.
    ///
    /// # Panics
    /// If the process does not run.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Returns everything that the service has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the status and the body of `/ready`, or `None` if the service does not answer.
    pub async fn ready(&self) -> Option<(u16, String)> {
        let response = self.get("ready").await?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// Waits until the service is ready.
    ///
    /// # Panics
    /// If it does not become ready. The text has its log.
    pub async fn wait_ready(&self) {
        let wait = eventually(self.name, || async { matches!(self.ready().await, Some((200, _))) });
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("{} is not ready: {:?}\n{}", self.name, self.ready().await, self.log());
        }
    }

    /// Returns the value of a counter or gauge, summed over its label sets: see [`Families::value`].
    ///
    /// # Panics
    /// If the service does not answer, declares no such metric, or has not set the gauge.
    pub async fn metric(&self, name: &str) -> f64 {
        let value = self.metric_if_set(name).await;
        value.unwrap_or_else(|| panic!("{} has not set {name}", self.name))
    }

    /// Returns the value of a metric as [`Service::metric`] does, and `None` for a gauge that has not been set.
    ///
    /// # Panics
    /// If the service does not answer, or declares no such metric.
    pub async fn metric_if_set(&self, name: &str) -> Option<f64> {
        let Some(response) = self.get("metrics").await else {
            panic!("{} does not answer, asked for {name}:\n{}", self.name, self.log())
        };
        let text = response.text().await.expect("metrics are text");
        let families = Families::of(self.name).expect("only services have metrics");
        families.value(&text, name).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    async fn get(&self, path: &str) -> Option<reqwest::Response> {
        let url = format!("http://127.0.0.1:{}/{path}", self.admin);
        client().get(url).send().await.ok()
    }
}

/// Returns the environment variable of a setting such as `streams.max`.
pub fn variable(key: &str) -> String {
    format!("TUTTI_{}", key.replace(['.', '-'], "_").to_uppercase())
}
