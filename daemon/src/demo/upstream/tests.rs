//! Does the UC server answer as its clients expect, seen through a socket?

use std::process::Command;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{LocalSet, spawn_local},
};

use super::*;

#[test]
fn the_page_is_served_and_nothing_else() {
    run(async |client, _| {
        let page = client.get("/ucassistant/", "").await;
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<!doctype html>"),
            "{page}"
        );
        for (file, kind, _) in PAGE {
            let file = client.get(&format!("/ucassistant/{file}"), "").await;
            assert!(file.starts_with("HTTP/1.1 200 OK\r\n") && file.contains(kind), "{file}");
        }
        assert!(client.get("/", "").await.contains("\r\nLocation: /ucassistant/\r\n"));
        for nowhere in ["/etc/passwd", "/ucassistant/../x", "/ucassistant/app.js/", "/xuc"] {
            assert!(client.get(nowhere, "").await.starts_with("HTTP/1.1 404 "), "{nowhere}");
        }
        assert!(
            client
                .get("/xuc/api/2.0/auth/login", "")
                .await
                .starts_with("HTTP/1.1 405 ")
        );
    });
}

#[test]
fn a_token_is_for_the_right_password_and_opens_the_rest() {
    run(async |client, _| {
        for (body, status) in [
            (r#"{"login":"alice","password":"wrong"}"#, "401"),
            (r#"{"login":"eve","password":"secret"}"#, "401"),
            (r#"{"login":"alice"}"#, "400"),
            ("login=alice", "400"),
        ] {
            let answer = client.post("/xuc/api/2.0/auth/login", body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        let token = client.log_in().await;
        assert!(client.get("/xuc/api/2.0/ice", "").await.starts_with("HTTP/1.1 401 "));
        let path = format!("/xuc/api/2.0/ice?token={token}");
        let ice = json_of(&client.get(&path, "").await);
        assert_eq!(ice["urls"]["udp"], "turn:127.0.0.1:3478?transport=udp");
        assert_eq!(ice["urls"]["tls"], "turns:127.0.0.1:3478?transport=tcp");
        assert!(ice["username"].as_str().is_some_and(|name| name.ends_with(":alice")));
        let by_header = client
            .get("/xuc/api/2.0/ice", &format!("X-Auth-Token: {token}\r\n"))
            .await;
        assert!(by_header.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn the_socket_tells_who_is_there_and_echoes() {
    run(async |client, directory| {
        let token = client.log_in().await;
        let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert!(
            client
                .get("/xuc/api/2.0/cti", upgrade)
                .await
                .starts_with("HTTP/1.1 403 ")
        );
        client
            .send_get(&format!("/xuc/api/2.0/cti?token={token}"), upgrade)
            .await;
        let head = client.head().await;
        // RFC 6455 section 1.3.
        assert!(
            head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{head}"
        );
        assert_eq!(
            client.text().await["ctiMessage"],
            json!({"alice": "absent", "bob": "absent"})
        );
        directory.set_registered(["bob"].into_iter());
        assert_eq!(
            client.text().await["ctiMessage"],
            json!({"alice": "absent", "bob": "available"})
        );
        let busy = directory.busy("bob");
        assert_eq!(client.text().await["ctiMessage"]["bob"], "busy");
        drop(busy);
        assert_eq!(client.text().await["ctiMessage"]["bob"], "available");
        // "{}", and a close, both masked with zeros.
        client
            .stream
            .write_all(&[0x81, 0x82, 0, 0, 0, 0, b'{', b'}'])
            .await
            .expect("sent");
        assert_eq!(client.text().await, json!({}));
        client.stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.expect("sent");
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).await.expect("closed");
        assert_eq!(rest, [0x88, 0x02, 0x03, 0xe8]);
    });
}

#[test]
fn the_scripts_of_the_page_pass_their_own_tests() {
    let node = |arguments: &[&str]| {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/page");
        Command::new("node").args(arguments).current_dir(page).output()
    };
    // Whoever builds this needs no node; where there is one, it is used.
    let Ok(tested) = node(&["sip.test.js"]) else { return };
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    for script in ["app.js", "call.js", "plot.js"] {
        let checked = node(&["--check", script]).expect("node was there before");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

fn run(test: impl AsyncFnOnce(&mut Client, &Rc<Directory>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let users = ["alice", "bob"].map(|user| (user.to_owned(), "secret".to_owned()));
        let directory = Rc::new(Directory::new(&users));
        let upstream = Rc::new(Upstream {
            directory: Rc::clone(&directory),
            turn: "127.0.0.1:3478".parse().expect("an address"),
            turn_secret: "shared".into(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let stream = TcpStream::connect(listener.local_addr().expect("bound"))
            .await
            .expect("connected");
        spawn_local(upstream.run(listener));
        test(&mut Client { stream }, &directory).await;
    });
}

/// One connection that is kept for all requests.
struct Client {
    stream: TcpStream,
}

impl Client {
    async fn send_get(&mut self, path: &str, headers: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: uc\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).await.expect("sent");
    }

    async fn get(&mut self, path: &str, headers: &str) -> String {
        self.send_get(path, headers).await;
        self.response().await
    }

    async fn post(&mut self, path: &str, body: &str) -> String {
        let length = body.len();
        let request = format!("POST {path} HTTP/1.1\r\nHost: uc\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).await.expect("sent");
        self.response().await
    }

    async fn log_in(&mut self) -> String {
        let answer = self
            .post("/xuc/api/2.0/auth/login", r#"{"login":"alice","password":"secret"}"#)
            .await;
        json_of(&answer)["token"].as_str().expect("a token").into()
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.expect("more"));
        }
        String::from_utf8(head).expect("text")
    }

    async fn response(&mut self) -> String {
        let head = self.head().await;
        let length = head
            .split("Content-Length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.expect("a length").parse().expect("a number")];
        self.stream.read_exact(&mut body).await.expect("a body");
        head + &String::from_utf8(body).expect("text")
    }

    /// The next message of the WebSocket, short as they are here.
    async fn text(&mut self) -> Value {
        loop {
            let (first, length) = (self.stream.read_u8().await, self.stream.read_u8().await);
            let mut payload = vec![0; length.expect("a length").into()];
            self.stream.read_exact(&mut payload).await.expect("a payload");
            match first.expect("a frame") {
                0x81 => return serde_json::from_slice(&payload).expect("JSON"),
                0x89 => {}
                other => panic!("a frame of kind {other:x}"),
            }
        }
    }
}

fn json_of(response: &str) -> Value {
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(body).expect("JSON")
}
