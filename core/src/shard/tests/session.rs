//! Does a whole session come through, however its bytes are cut and whoever is stuck meanwhile?

use proptest::prelude::*;

use super::*;

/// What a browser and the servers behind the edge have got by the end.
#[derive(PartialEq, Eq)]
struct Outcome {
    browser: Vec<u8>,
    upstreams: Vec<Vec<u8>>,
}

impl core::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Bodies are long and of one letter each.
        let mut shape = |bytes: &[u8]| {
            for run in bytes.chunk_by(|a, b| a == b) {
                match run {
                    [byte, _, _, _, ..] => write!(f, "[{} x {}]", byte.escape_ascii(), run.len())?,
                    _ => write!(f, "{}", run.escape_ascii())?,
                }
            }
            writeln!(f)
        };
        shape(&self.browser)?;
        self.upstreams.iter().try_for_each(|bytes| shape(bytes))
    }
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The browser's next bytes arrive, at most so many.
    Browser(usize),
    /// The next bytes of the upstream that was called last arrive.
    Upstream(usize),
    /// From here on the browser takes nothing.
    BrowserSticks,
    /// From here on the upstream that was called last takes nothing.
    UpstreamSticks,
    /// Everybody takes what there is.
    Released,
}

/// A server that answers each request it has got, and then speaks through a tunnel.
struct Origin {
    conn: ConnId,
    got: Vec<u8>,
    understood: usize,
    answers: BytesMut,
    is_tunnel: bool,
    has_ended: bool,
}

struct Session {
    world: World,
    browser: Browser,
    /// What the browser has still to send, encrypted.
    unsent: BytesMut,
    has_ended: bool,
    read: Vec<u8>,
    origins: Vec<Origin>,
    stuck: Option<ConnId>,
}

/// Two requests behind each other, an upload, and a WebSocket with messages, of which the first come early.
fn script() -> Vec<u8> {
    let upload = "POST /ucassistant/upload HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 150000\r\n\r\n";
    [
        get("/ucassistant/long").as_bytes(),
        get("/ucassistant/short").as_bytes(),
        upload.as_bytes(),
        &[b'u'; 150_000],
        UPGRADE.as_bytes(),
        &[b'm'; 90_000],
    ]
    .concat()
}

/// What an upstream answers to a request.
fn answer(head: &str) -> Vec<u8> {
    let body = match head.split(' ').nth(1) {
        Some("/ucassistant/long") => 100_000,
        Some("/ucassistant/upload") => 10_000,
        Some("/cti?token=a.b.c") => return [SWITCH.as_bytes(), &[b't'; 120_000]].concat(),
        _ => 5,
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
    [head.into_bytes(), vec![b'b'; body]].concat()
}

impl Origin {
    fn understand(&mut self) {
        while !self.is_tunnel {
            let fresh = &self.got[self.understood..];
            let Some(head_len) = fresh.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4) else {
                return;
            };
            let head = str::from_utf8(&fresh[..head_len]).expect("a head");
            let length = head
                .split_once("Content-Length: ")
                .and_then(|(_, rest)| rest.split("\r\n").next());
            let len = head_len + length.map_or(0, |digits| digits.parse().expect("a length"));
            if fresh.len() < len {
                return;
            }
            self.answers.extend_from_slice(&answer(head));
            self.is_tunnel = head.contains("Upgrade: websocket");
            self.understood += len;
        }
    }
}

impl Session {
    fn new() -> Self {
        let mut world = World::new();
        let mut browser = world.browser();
        let mut unsent = BytesMut::new();
        browser.tls.seal(&script(), &mut unsent).expect("sealed");
        browser.tls.close(&mut unsent);
        Self {
            world,
            browser,
            unsent,
            has_ended: false,
            read: Vec::new(),
            origins: Vec::new(),
            stuck: None,
        }
    }

    fn run(mut self, events: &[Event]) -> Outcome {
        for event in events {
            self.happen(*event);
        }
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.progress();
            for event in [Event::Released, Event::Browser(1 << 16), Event::Upstream(1 << 16)] {
                self.happen(event);
            }
            quiet = if self.progress() == before { quiet + 1 } else { 0 };
        }
        self.world.pass(Duration::from_secs(200));
        let shard = &self.world.shard;
        assert!(shard.conns.is_empty() && shard.clients.is_empty() && shard.listed.is_empty());
        assert_eq!(shard.timers.len(), 0);
        assert_eq!(shard.stats.edge.faults + shard.stats.web.failed, 0);
        Outcome {
            browser: self.read,
            upstreams: self.origins.into_iter().map(|origin| origin.got).collect(),
        }
    }

    /// Grows whenever anything moves.
    fn progress(&self) -> usize {
        let got: usize = self
            .origins
            .iter()
            .map(|origin| origin.got.len() + usize::from(origin.has_ended))
            .sum();
        got + self.read.len() + script().len() + usize::from(self.has_ended) + (1 << 30) - self.unsent.len()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Browser(most) => {
                let conn = self.browser.conn;
                if !self.may_send(conn) {
                    return;
                }
                let bytes = self.unsent.split_to(most.min(self.unsent.len()));
                self.arrive(conn, &bytes);
                if self.unsent.is_empty() && !core::mem::replace(&mut self.has_ended, true) {
                    self.end(conn);
                }
            }
            Event::Upstream(most) => {
                let Some(conn) = self.origins.last().map(|origin| origin.conn) else {
                    return;
                };
                if !self.may_send(conn) {
                    return;
                }
                let Some(origin) = self.origins.last_mut() else { return };
                let bytes = origin.answers.split_to(most.min(origin.answers.len()));
                let ends =
                    origin.is_tunnel && origin.answers.is_empty() && !core::mem::replace(&mut origin.has_ended, true);
                self.arrive(conn, &bytes);
                if ends {
                    self.end(conn);
                }
            }
            Event::BrowserSticks => {
                self.release();
                self.stuck = Some(self.browser.conn);
            }
            Event::UpstreamSticks => {
                self.release();
                self.stuck = self.origins.last().map(|origin| origin.conn);
            }
            Event::Released => self.release(),
        }
        self.look();
    }

    fn release(&mut self) {
        let Some(conn) = self.stuck.take() else { return };
        while let Some(bytes) = self.world.shard.take_output(conn) {
            self.world.written.entry(conn).or_default().extend_from_slice(&bytes);
            self.world.handle(Input::Written(conn));
        }
    }

    fn may_send(&self, conn: ConnId) -> bool {
        !self.world.unread.contains(&conn) && !self.world.closed.contains(&conn)
    }

    fn arrive(&mut self, conn: ConnId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.world.receive_stuck(conn, bytes, self.stuck);
        }
    }

    fn end(&mut self, conn: ConnId) {
        self.world
            .shard
            .handle(self.world.now, Input::Eof(conn), &mut self.world.out);
        self.world.act(self.stuck);
    }

    /// Everybody looks at what has come.
    fn look(&mut self) {
        while let Some((conn, to)) = self.world.dialed.pop() {
            let endpoints = Endpoints {
                local: "192.0.2.1:40000".parse().unwrap(),
                peer: to,
            };
            let dialed = Input::Dialed(conn, Ok(endpoints));
            self.world.shard.handle(self.world.now, dialed, &mut self.world.out);
            self.world.act(self.stuck);
            self.origins.push(Origin {
                conn,
                got: Vec::new(),
                understood: 0,
                answers: BytesMut::new(),
                is_tunnel: false,
                has_ended: false,
            });
        }
        for origin in &mut self.origins {
            origin
                .got
                .extend_from_slice(&self.world.written.remove(&origin.conn).unwrap_or_default());
            origin.understand();
        }
        self.read.extend(self.world.read_bytes(&mut self.browser));
    }
}

fn event() -> impl Strategy<Value = Event> {
    let size = || prop_oneof![1..40_usize, 1..2000_usize, 1..70_000_usize];
    prop_oneof![
        8 => size().prop_map(Event::Browser),
        8 => size().prop_map(Event::Upstream),
        1 => Just(Event::BrowserSticks),
        1 => Just(Event::UpstreamSticks),
        2 => Just(Event::Released),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_cut_of_a_session_gives_the_same_bytes(events in prop::collection::vec(event(), 0..200)) {
        let whole = Session::new().run(&[]);
        let (first, messages) = (whole.upstreams.len(), whole.upstreams.last().map(Vec::as_slice));
        prop_assert!(first == 2 && messages.is_some_and(|bytes| bytes.ends_with(&[b'm'; 90_000])));
        prop_assert!(whole.browser.ends_with(&[b't'; 120_000]));
        let cut = Session::new().run(&events);
        prop_assert!(cut == whole, "{cut:?} is not {whole:?}");
    }
}
