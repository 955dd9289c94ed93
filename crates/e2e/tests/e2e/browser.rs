//! A real browser, driven by WebDriver.

use std::path::Path;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use serde_json::{Value, json};
use tutti::local::{Owned, find, wait_for_port};
use tutti_e2e::free_port;

/// A headless Chromium.
pub(crate) struct Browser {
    pub(crate) client: Client,
    _driver: Owned,
}

impl Browser {
    /// Starts Chromium with a window of its usual size.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[], json!({})).await
    }

    /// Starts Chromium with further arguments. A `screen` that is not empty is like that of chromedriver's
    /// `mobileEmulation`.
    pub(crate) async fn start_with(folder: &Path, further: &[&str], screen: Value) -> Self {
        let needed = "apt-get install chromium chromium-driver";
        let driver = find("chromedriver").expect(needed);
        let chromium = find("chromium").expect(needed);
        let port = free_port();
        let command = [driver.into_os_string(), format!("--port={port}").into()];
        let process = Owned::start(&command, "TERM", &folder.join("chromedriver.log")).unwrap();
        wait_for_port(port, Duration::from_secs(30)).unwrap();
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        arguments.extend(further);
        let mut options = json!({ "binary": chromium, "args": arguments });
        if screen.as_object().is_some_and(|screen| !screen.is_empty()) {
            options["mobileEmulation"] = screen;
        }
        let capabilities = [("goog:chromeOptions".to_owned(), options)].into_iter().collect();
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium starts");
        Self { client, _driver: process }
    }

    /// Returns the value of a JavaScript expression in the page, or `Null` if it throws.
    pub(crate) async fn tell(&self, script: &str) -> Value {
        self.client.execute(&format!("return {script}"), Vec::new()).await.unwrap_or_default()
    }

    /// Returns the text of the first element that a selector finds.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.tell(&format!("document.querySelector('{selector}').textContent")).await;
        text.as_str().unwrap_or_default().to_owned()
    }
}
