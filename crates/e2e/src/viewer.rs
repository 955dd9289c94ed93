//! A viewer of the map that follows a stream in the background.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinHandle;
use tutti_load::sse::{Request, Source};
use tutti_load::watch::Viewer;

/// A stream that is being followed.
pub struct Following {
    viewer: Arc<Mutex<Viewer>>,
    task: JoinHandle<Result<(), String>>,
}

impl Following {
    /// Opens a stream as a new viewer.
    ///
    /// # Panics
    /// If the stream does not open.
    pub async fn start(url: &str) -> Self {
        Self::go_on(url, Viewer::default()).await
    }

    /// Opens a stream that resumes from what a viewer has.
    ///
    /// # Panics
    /// If the stream does not open.
    pub async fn go_on(url: &str, viewer: Viewer) -> Self {
        let last_event_id = (!viewer.last_id.is_empty()).then(|| viewer.last_id.clone());
        let request = Request { url: url.to_owned(), last_event_id, token: None };
        let mut source = Source::open(&request).await.expect("the stream opens");
        let viewer = Arc::new(Mutex::new(viewer));
        let ours = viewer.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = source.next().await.map_err(|e| format!("{e:#}"))? {
                let mut viewer = ours.lock().expect("no test panics while it holds this");
                viewer.hear(&event).map_err(|e| format!("{e:#}"))?;
            }
            Ok(())
        });
        Self { viewer, task }
    }

    /// Returns what the viewer holds now.
    ///
    /// # Panics
    /// If the task that follows the stream panicked.
    pub fn viewer(&self) -> MutexGuard<'_, Viewer> {
        self.viewer.lock().expect("no test panics while it holds this")
    }

    /// Whether the stream is still open.
    pub fn is_open(&self) -> bool {
        !self.task.is_finished()
    }

    /// Cuts the connection, and returns what the viewer held then.
    pub fn cut(self) -> Viewer {
        self.task.abort();
        self.viewer().clone()
    }
}

impl Following {
    /// Waits for the end of the stream. Returns `Ok` if the server ended it as HTTP requires.
    ///
    /// # Errors
    /// If the stream broke off, or an event was not one of the map.
    ///
    /// # Panics
    /// If the task that follows the stream panicked.
    pub async fn result(self) -> Result<(), String> {
        self.task.await.expect("hearing does not panic")
    }
}
