//! What does a person with a browser see? Headless Chromium, driven by the DevTools protocol.

use std::{
    env,
    io::ErrorKind,
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use crate::{deadline, process::Process, remaining, site::Site};

/// A page in a browser of its own. When the test fails, it tells what the page showed and what it wrote to its console.
#[derive(Debug)]
pub struct Page {
    socket: WebSocket<TcpStream>,
    /// The page among all that the browser can be asked about.
    session: Option<String>,
    last_id: u64,
    console: Vec<String>,
    state: String,
    browser: Process,
}

/// Where Chromium is, if it is installed.
pub fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

impl Page {
    /// Starts a browser that trusts the certificate with this hash of its key, and opens a page in it. The browser has
    /// a microphone that beeps, and asks nobody whether the page may use it. The value of the expression `state` is
    /// printed when the test fails.
    ///
    /// # Panics
    /// When there is no browser or no page.
    pub fn open(site: &Site, url: &str, trusted: &str, state: &str) -> Self {
        let mut command = Command::new(chromium().expect("Chromium"));
        command
            .args(ARGUMENTS)
            .arg(format!("--user-data-dir={}", site.folder().join("chromium").display()))
            .arg(format!("--ignore-certificate-errors-spki-list={trusted}"));
        let browser = Process::spawn("chromium", &mut command);
        let line = browser.wait_for(LISTENING);
        let (_, devtools) = line.split_once(LISTENING).expect("the line that was waited for");
        let (address, _) = devtools
            .strip_prefix("ws://")
            .and_then(|rest| rest.split_once('/'))
            .expect("the address of the browser");
        let stream = TcpStream::connect(address).expect("a connection to the browser");
        let (socket, _) = tungstenite::client(devtools, stream).expect("a WebSocket to the browser");
        let mut page = Self {
            socket,
            session: None,
            last_id: 0,
            console: Vec::new(),
            state: state.to_owned(),
            browser,
        };
        let target = page.command("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.command("Target.attachToTarget", &attach);
        page.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Runtime", "Log"] {
            page.command(&format!("{domain}.enable"), &json!({}));
        }
        let opened = page.command("Page.navigate", &json!({ "url": url }));
        assert_eq!(opened["errorText"], Value::Null, "{url} does not open");
        page
    }

    /// The value of an expression; when that is a promise, what comes of it.
    ///
    /// # Panics
    /// When it throws, or does not come in time.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        match self.try_evaluate(expression) {
            Ok(value) => value,
            Err(error) => panic!("{expression}: {error}"),
        }
    }

    /// Waits until the value of an expression is a true one, and returns it.
    ///
    /// # Panics
    /// When it throws, or does not become true in time.
    #[track_caller]
    pub fn until(&mut self, expression: &str) -> Value {
        match self.try_evaluate(&awaited(expression)) {
            Ok(value) => value,
            Err(error) => panic!("{expression} did not become true: {error}"),
        }
    }

    fn try_evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let evaluate = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut evaluated = self.try_command("Runtime.evaluate", &evaluate)?;
        match thrown(&evaluated["exceptionDetails"]) {
            Some(exception) => Err(exception),
            None => Ok(evaluated["result"]["value"].take()),
        }
    }

    fn command(&mut self, method: &str, params: &Value) -> Value {
        self.try_command(method, params)
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_command(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let sent = self.socket.send(Message::text(command.to_string()));
        sent.map_err(|error| error.to_string())?;
        let deadline = deadline();
        loop {
            let mut message = self.receive(deadline)?;
            if message["id"] != self.last_id {
                self.console.extend(said(&message));
                continue;
            }
            return match message.get("error") {
                Some(error) => Err(error.to_string()),
                None => Ok(message["result"].take()),
            };
        }
    }

    /// Prints all that helps to find out why a test failed.
    fn tell(&mut self) {
        let state = self.state.clone();
        let state = self.try_evaluate(&state).unwrap_or_else(Value::from);
        eprintln!("---- the page ----\n{state:#}\n---- its console ----");
        for line in &self.console {
            eprintln!("{line}");
        }
    }

    /// The next answer or event.
    fn receive(&mut self, deadline: Instant) -> Result<Value, String> {
        loop {
            let left = remaining(deadline).ok_or("nothing in time")?;
            let stream = self.socket.get_ref();
            stream.set_read_timeout(Some(left)).expect("a timeout above zero");
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).expect("JSON from the browser")),
                Ok(_) => {}
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(format!("the browser is gone: {error}")),
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
            return;
        }
        // Killed, it would leave processes behind that still write into the folder of the test.
        self.session = None;
        let _ = self.try_command("Browser.close", &json!({}));
        self.browser.wait();
    }
}

/// An expression for a promise of the value of another one, once that is a true one.
pub(crate) fn awaited(expression: &str) -> String {
    format!(
        "(async () => {{
            for (;;) {{
                const value = await {expression};
                if (value) return value;
                await new Promise((resolve) => setTimeout(resolve, {}));
            }}
        }})()",
        LOOK.as_millis(),
    )
}

/// What a person would read in the console because of an event.
fn said(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.consoleAPICalled" => {
            let arguments = params["args"].as_array()?.iter();
            let words = arguments.map(|argument| argument.get("value").unwrap_or(&argument["description"]).to_string());
            Some(format!("{}: {}", params["type"], words.collect::<Vec<_>>().join(" ")))
        }
        "Runtime.exceptionThrown" => thrown(&params["exceptionDetails"]),
        "Log.entryAdded" => {
            let entry = &params["entry"];
            Some(format!("{}: {} ({})", entry["level"], entry["text"], entry["url"]))
        }
        _ => None,
    }
}

fn thrown(details: &Value) -> Option<String> {
    let description = details["exception"]
        .get("description")
        .unwrap_or(&details["exception"]["value"]);
    let text = details["text"].as_str()?;
    Some(format!("{text} {}", description.as_str().unwrap_or_default()))
}

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const ARGUMENTS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
];
const LISTENING: &str = "DevTools listening on ";
/// How often a page looks whether an expression has become true.
const LOOK: Duration = Duration::from_millis(50);
