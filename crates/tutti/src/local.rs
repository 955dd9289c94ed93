//! Processes on this machine that end when the process that started them ends, however it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A process that ends with this one. Its parent is a shell that waits until this process closes its end of a pipe,
/// which the kernel does even if this process is killed. It runs in a process group of its own, so that a Ctrl-C in
/// the terminal does not reach it before this process has stopped using it.
pub struct Owned {
    shell: Child,
    pid: u32,
}

/// Runs "$@", prints its process id, and ends it when the standard input of the shell ends. At last kills the whole
/// process group, with whatever the process started.
const SHELL: &str = r#"
"$@" >>"$TUTTI_LOG" 2>&1 &
pid=$!
echo "$pid"
read -r _
kill -"$TUTTI_SIGNAL" "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
kill -KILL 0
"#;

impl Owned {
    /// Starts a process whose output is appended to the file `log`. A signal such as `TERM` ends it.
    ///
    /// # Errors
    /// If there is no shell. A command that does not exist shows in the log.
    pub fn start<S: AsRef<OsStr>>(command: &[S], signal: &str, log: &Path) -> anyhow::Result<Self> {
        Self::start_with(command, signal, log, [])
    }

    /// Starts a process like [`Owned::start`], with these environment variables and no others that begin with
    /// `TUTTI_`.
    ///
    /// # Errors
    /// If there is no shell. A command that does not exist shows in the log.
    pub fn start_with<S: AsRef<OsStr>>(
        command: &[S],
        signal: &str,
        log: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        // The log exists from now on, for anyone who reads it.
        File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TUTTI_")) {
            shell.env_remove(name);
        }
        let mut shell = shell
            .args(["-c", SHELL, "sh"])
            .args(command)
            .envs(variables)
            .env("TUTTI_SIGNAL", signal)
            .env("TUTTI_LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting sh")?;
        let mut line = String::new();
        let stdout = shell.stdout.take().context("the shell's output")?;
        BufReader::new(stdout).read_line(&mut line).context("the shell's output")?;
        let pid =
            line.trim().parse().with_context(|| format!("the shell told no process id but {line:?}"))?;
        Ok(Self { shell, pid })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A `redis-server` in a temporary folder that keeps nothing on disk.
pub struct Redis {
    process: Owned,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Redis {
    /// Starts a Redis, and waits until it answers.
    ///
    /// # Errors
    /// If `redis-server` is not installed, or does not start.
    pub fn start(port: u16) -> anyhow::Result<Self> {
        check_port_free(port, "Redis")?;
        find("redis-server").context(
            "redis-server is not installed: apt-get install redis-server, or REDIS=redis://host:port for one that runs",
        )?;
        let folder = tempfile::tempdir().context("a temporary folder for Redis")?;
        let dir = folder.path().to_string_lossy().into_owned();
        let port_text = port.to_string();
        let command = [
            "redis-server",
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir,
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ];
        let log = folder.path().join("redis.log");
        let process = Owned::start(&command, "TERM", &log)?;
        wait_for_port(port, Duration::from_secs(10))
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
            .context("redis-server did not come up")?;
        Ok(Self { process, _folder: folder, port })
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Checks that a port of 127.0.0.1 can be listened on.
///
/// # Errors
/// If it cannot. The error says what to do about it.
pub fn check_port_free(port: u16, what: &str) -> anyhow::Result<()> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).with_context(|| {
        format!("port {port} of 127.0.0.1, for {what}, is in use; end what uses it, or choose others with --port-base")
    })
}

/// Waits until something listens on a port of 127.0.0.1.
///
/// # Errors
/// If nothing does in time.
pub fn wait_for_port(port: u16, timeout: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + timeout;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
        anyhow::ensure!(Instant::now() < until, "nothing listens on port {port} after {timeout:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns the path of a program that is in a folder of PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
