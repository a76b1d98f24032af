//! What does a real browser do? Headless Chromium, driven by its DevTools protocol.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    PATIENCE,
    peers::websocket::{Event, Handshake, WebSocketClient},
    process::Process,
};

/// Names of the program, by distribution.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What makes it run in a test: no window, no question for the microphone, a tone in its place, and certificates of
/// anybody.
const ARGUMENTS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
];

/// A browser that runs without a window.
#[derive(Debug)]
pub struct Chromium {
    _process: Process,
    devtools: SocketAddr,
    /// The WebSocket of the browser as a whole.
    path: String,
}

/// A page in it.
#[derive(Debug)]
pub struct Page {
    devtools: WebSocketClient,
    session: String,
    last: u64,
}

impl Chromium {
    /// Where it is installed.
    pub fn find() -> Option<PathBuf> {
        let folders = env::var_os("PATH")?;
        let candidates = env::split_paths(&folders).flat_map(|folder| NAMES.map(|name| folder.join(name)));
        candidates.into_iter().find(|path| path.is_file())
    }

    /// Starts it with a profile of its own in this folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(program: &Path, folder: &Path) -> Self {
        let profile = format!("--user-data-dir={}", folder.join("chromium").display());
        let mut command = Command::new(program);
        command.args(ARGUMENTS).arg(profile).arg("about:blank");
        let process = Process::spawn("chromium", &mut command);
        let line = process.wait_for("DevTools listening on ws://");
        let (_, url) = line.split_once("ws://").expect("a URL");
        let (authority, path) = url.split_once('/').expect("a path");
        Self {
            devtools: authority.parse().expect("an address and a port"),
            path: format!("/{path}"),
            _process: process,
        }
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub fn open(&self, url: &str) -> Page {
        let handshake = Handshake::plain(Ipv4Addr::LOCALHOST.into(), self.devtools, &self.path);
        let mut page = Page {
            devtools: handshake.open().expect("the WebSocket of DevTools"),
            session: String::new(),
            last: 0,
        };
        let target = page.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = page.call(
            "Target.attachToTarget",
            &json!({ "targetId": target["targetId"], "flatten": true }),
        );
        page.session = attached["sessionId"].as_str().expect("a session").to_owned();
        page.call("Page.enable", &json!({}));
        page.call("Runtime.enable", &json!({}));
        let loaded = page.call("Page.navigate", &json!({ "url": url }));
        assert!(loaded.get("errorText").is_none(), "{url}: {loaded}");
        page.wait_for("document.readyState === 'complete'");
        page
    }
}

impl Page {
    /// The value of an expression; a promise is waited for.
    ///
    /// # Panics
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let outcome = self.call("Runtime.evaluate", &parameters);
        assert!(
            outcome.get("exceptionDetails").is_none(),
            "{expression}: {}",
            outcome["exceptionDetails"]
        );
        outcome["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// When that does not come.
    pub fn wait_for(&mut self, condition: &str) {
        // The page looks by itself; a page that is being replaced takes its promise along.
        let millis = PATIENCE.as_millis();
        let promise = format!(
            "new Promise((resolve) => {{
                const until = performance.now() + {millis};
                const look = () => {{
                    let found = false;
                    try {{ found = Boolean({condition}); }} catch {{ }}
                    if (found || performance.now() > until) resolve(found); else setTimeout(look, 20);
                }};
                look();
            }})"
        );
        if self.evaluate(&promise) != Value::Bool(true) {
            let state = self.evaluate("JSON.stringify(window.edgeward)");
            panic!("{condition} does not come true; {state}");
        }
    }

    /// Calls a method of DevTools and returns its result.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.devtools.send_text(&message.to_string());
        // A promise may take as long as a wait, and events come in between.
        let deadline = std::time::Instant::now() + 2 * PATIENCE;
        loop {
            let event = self.devtools.next(deadline);
            let Some(Event::Text(text)) = event else {
                panic!("{method}: no answer of DevTools but {event:?}");
            };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"] == self.last {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }
}
