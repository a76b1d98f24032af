//! What does the UC server of the LAN serve? The page, log-in, TURN credentials and a socket that tells who is there.

use std::{collections::BTreeMap, io, net::SocketAddr, rc::Rc, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::interval};

use self::{
    http::{Connection, Request, Response},
    websocket::{Received, WebSocket},
};
use super::{
    directory::{Directory, Presence, TOKEN_LIFETIME_SECS, turn_credentials},
    mediaserver::DOMAIN,
};

mod http;
mod websocket;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// A WebSocket on which nothing happens is kept alive by a ping this often.
const PING: Duration = Duration::from_secs(30);

/// The files of the page.
const PAGE: [(&str, &str, &str); 10] = [
    (
        "index.html",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("call.js", SCRIPT, include_str!("page/call.js")),
    ("plot.js", SCRIPT, include_str!("page/plot.js")),
    ("sip.js", SCRIPT, include_str!("page/sip.js")),
    ("session.js", SCRIPT, include_str!("page/session.js")),
    ("message.js", SCRIPT, include_str!("page/message.js")),
    ("digest.js", SCRIPT, include_str!("page/digest.js")),
    ("md5.js", SCRIPT, include_str!("page/md5.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The web server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) directory: Rc<Directory>,
    /// Where browsers find the TURN server.
    pub(super) turn: SocketAddr,
    /// What we share with the TURN server.
    pub(super) turn_secret: String,
}

impl Upstream {
    /// Serves until dropped. To be run within a `LocalSet`.
    pub(super) async fn run(self: Rc<Self>, listener: TcpListener) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                    // An error is that of the one connection: it was gone before we took it.
                    let Ok((stream, _)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    let this = Rc::clone(&self);
                    connections.spawn_local(async move {
                        if let Err(error) = this.connection(Connection::new(stream)).await {
                            tracing::debug!(%error, "connection to the UC server");
                        }
                    });
                }
                Some(_ended) = connections.join_next() => {}
            }
        }
    }

    async fn connection(&self, mut connection: Connection) -> io::Result<()> {
        while let Some(request) = connection.request().await? {
            let request = match request {
                Ok(request) => request,
                Err(response) => return connection.refuse(&response).await,
            };
            if request.path == "/xuc/api/2.0/cti"
                && self.user(&request).is_some()
                && let Some(response) = websocket::accept(&request)
            {
                let (stream, buffer) = connection.upgrade(&response).await?;
                return self.cti(WebSocket::new(stream, buffer)).await;
            }
            let response = self.respond(&request);
            if !connection.respond(&request, &response).await? {
                break;
            }
        }
        Ok(())
    }

    fn respond(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/") => Response::new(302).with("Location", "/ucassistant/"),
            ("GET" | "HEAD", "/ucassistant") => Response::new(302).with("Location", "/ucassistant/"),
            ("GET" | "HEAD", path) if path.starts_with("/ucassistant/") => page(path),
            ("POST", "/xuc/api/2.0/auth/login") => self.log_in(&request.body),
            ("GET", "/xuc/api/2.0/ice") => match self.user(request) {
                Some(user) => self.ice(&user),
                None => Response::new(401),
            },
            ("GET", "/xuc/api/2.0/cti") => Response::new(403),
            (_, "/" | "/ucassistant" | "/xuc/api/2.0/auth/login" | "/xuc/api/2.0/ice") => Response::new(405),
            _ => Response::new(404),
        }
        .with("Cache-Control", "no-store")
    }

    fn log_in(&self, body: &[u8]) -> Response {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return Response::new(400);
        };
        let (login, password) = (body["login"].as_str(), body["password"].as_str());
        let (Some(login), Some(password)) = (login, password) else {
            return Response::new(400);
        };
        match self.directory.user(login) {
            Some((name, right)) if right == password => Response::json(&json!({
                "login": name,
                "token": self.directory.token(name),
                "TTL": TOKEN_LIFETIME_SECS,
                "domain": DOMAIN,
            })),
            _ => Response::new(401),
        }
    }

    /// What a browser needs to relay: the ways to the TURN server and credentials for a while.
    fn ice(&self, user: &str) -> Response {
        let turn = self.turn;
        let (username, credential) = turn_credentials(&self.turn_secret, user);
        Response::json(&json!({
            "urls": {
                "udp": format!("turn:{turn}?transport=udp"),
                "tcp": format!("turn:{turn}?transport=tcp"),
                "tls": format!("turns:{turn}?transport=tcp"),
            },
            "username": username,
            "credential": credential,
            "ttl": TOKEN_LIFETIME_SECS,
        }))
    }

    /// The user of the token in the request.
    fn user(&self, request: &Request) -> Option<String> {
        let token = request.parameter("token").or_else(|| request.header("x-auth-token"))?;
        self.directory.user_of_token(token)
    }

    /// Tells who is there whenever it changes, and sends back what a client wants to have timed.
    async fn cti(&self, mut websocket: WebSocket) -> io::Result<()> {
        let mut presence = self.directory.watch();
        presence.mark_changed();
        let mut ping = interval(PING);
        loop {
            tokio::select! {
                received = websocket.receive() => match received? {
                    Received::Text(text) => websocket.text(&text).await?,
                    Received::Ping(payload) => websocket.pong(&payload).await?,
                    Received::Close => return websocket.close().await,
                },
                changed = presence.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let message = describe(&presence.borrow_and_update());
                    websocket.text(&message).await?;
                }
                _ = ping.tick() => websocket.ping().await?,
            }
        }
    }
}

fn page(path: &str) -> Response {
    let name = match path.trim_start_matches("/ucassistant/") {
        "" => "index.html",
        name => name,
    };
    let Some((_, kind, content)) = PAGE.iter().find(|(file, ..)| *file == name) else {
        return Response::new(404);
    };
    Response::new(200)
        .with_body(kind, *content)
        .with(
            "Content-Security-Policy",
            "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
        )
        .with("X-Content-Type-Options", "nosniff")
}

fn describe(presence: &BTreeMap<String, Presence>) -> String {
    let users = presence.iter().map(|(name, state)| {
        let state = match (state.registered, state.calls) {
            (_, 1..) => "busy",
            (true, 0) => "available",
            (false, 0) => "absent",
        };
        (name.clone(), Value::from(state))
    });
    json!({"msgType": "Presence", "ctiMessage": Value::Object(users.collect())}).to_string()
}

#[cfg(test)]
mod tests;
