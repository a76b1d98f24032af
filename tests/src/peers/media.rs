//! Does a call carry sound? A WebRTC endpoint of str0m, on a socket of its own or behind a TURN client.

use std::{
    fmt,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpOffer, SdpPendingOffer},
    media::{Direction, Frequency, MediaKind, MediaTime, Mid},
    net::{Protocol, Receive},
};

use crate::{deadline, peers::turn_client::TurnClient, remaining};

/// One packet of sound.
const FRAME: Duration = Duration::from_millis(20);
/// What a frame lasts at 48 kHz.
const FRAME_SAMPLES: u64 = 960;
/// An endpoint looks this often whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// How the datagrams of an endpoint travel.
#[derive(Debug)]
pub enum Path {
    /// From a socket of its own.
    Direct(UdpSocket),
    /// By a TURN server, on an allocation that is there already.
    Relayed(Box<TurnClient>),
}

/// An endpoint that has made an offer.
pub struct Caller {
    rtc: Rtc,
    pending: SdpPendingOffer,
    path: Path,
    offer: String,
    mid: Mid,
}

/// An endpoint in a call: it sends frames that begin with its name, and counts those that come.
#[derive(Debug)]
pub struct Media {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Path>>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
    stop: AtomicBool,
}

/// What an endpoint has received.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Frames.
    pub frames: usize,
    /// The last of them.
    pub last: Vec<u8>,
    /// Who sent the datagrams, each sender once.
    pub senders: Vec<SocketAddr>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Path {
    /// A path from this address and a free port among these.
    ///
    /// # Panics
    /// When all are taken.
    pub fn direct(from: SocketAddr) -> Self {
        let socket = (from.port()..from.port() + 100)
            .find_map(|port| UdpSocket::bind((from.ip(), port)).ok())
            .expect("a free port for media");
        Self::Direct(socket)
    }

    /// The address that others see.
    ///
    /// # Panics
    /// When the TURN client has no allocation.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Direct(socket) => socket.local_addr().expect("a bound socket"),
            Self::Relayed(client) => client.relayed().expect("an allocation"),
        }
    }

    fn candidate(&self) -> Candidate {
        match self {
            Self::Direct(_) => Candidate::host(self.address(), "udp"),
            Self::Relayed(client) => Candidate::relayed(self.address(), client.local_addr(), "udp"),
        }
        .expect("an address for media")
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        match self {
            // The other side may have hung up.
            Self::Direct(socket) => drop(socket.send_to(bytes, to)),
            Self::Relayed(client) => client.send_with_channel(to, bytes),
        }
    }

    fn receive(&mut self, deadline: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        match self {
            Self::Relayed(client) => client.receive(deadline),
            Self::Direct(socket) => {
                let mut buffer = vec![0; 2048];
                socket
                    .set_read_timeout(Some(remaining(deadline)?))
                    .expect("a timeout above zero");
                let (length, from) = socket.recv_from(&mut buffer).ok()?;
                buffer.truncate(length);
                Some((from, buffer))
            }
        }
    }
}

impl Caller {
    /// Makes an offer of one audio stream.
    ///
    /// # Panics
    /// When the library does not.
    pub fn new(path: Path) -> Self {
        let mut rtc = Rtc::new(Instant::now());
        rtc.add_local_candidate(path.candidate());
        let mut changes = rtc.sdp_api();
        let mid = changes.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = changes.apply().expect("an offer");
        Self {
            rtc,
            pending,
            path,
            offer: offer.to_sdp_string(),
            mid,
        }
    }

    /// The offer, SDP.
    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// Takes the answer and begins to talk.
    ///
    /// # Panics
    /// When it is no answer to this offer.
    pub fn start(mut self, name: &str, answer: &str) -> Media {
        let answer = SdpAnswer::from_sdp_string(answer).expect("an SDP answer");
        self.rtc
            .sdp_api()
            .accept_answer(self.pending, answer)
            .expect("an answer to this offer");
        Media::start(name, self.rtc, self.path, Some(self.mid))
    }
}

impl Media {
    /// Answers an offer and begins to talk; the answer is SDP.
    ///
    /// # Panics
    /// When it is no offer.
    pub fn answer(name: &str, path: Path, offer: &str) -> (Self, String) {
        let mut rtc = Rtc::new(Instant::now());
        rtc.add_local_candidate(path.candidate());
        let offer = SdpOffer::from_sdp_string(offer).expect("an SDP offer");
        let answer = rtc
            .sdp_api()
            .accept_offer(offer)
            .expect("an offer that can be accepted");
        (Self::start(name, rtc, path, None), answer.to_sdp_string())
    }

    fn start(name: &str, rtc: Rtc, path: Path, mid: Option<Mid>) -> Self {
        let shared = Arc::new(Shared::default());
        let endpoint = Endpoint {
            name: name.to_owned(),
            rtc,
            path,
            mid,
            sent: 0,
            next: None,
            shared: shared.clone(),
        };
        Self {
            shared,
            thread: Some(thread::spawn(move || endpoint.run())),
        }
    }

    /// Waits until so many more frames have come than when this is called; returns all that was heard.
    ///
    /// # Panics
    /// When they do not come.
    pub fn hear(&self, frames: usize) -> Heard {
        let deadline = deadline();
        let mut heard = self.shared.heard();
        let wanted = heard.frames + frames;
        while heard.frames < wanted {
            let Some(left) = remaining(deadline) else {
                let heard = heard.clone();
                panic!("waits for {wanted} frames of sound, has heard {heard:?}");
            };
            heard = self
                .shared
                .changed
                .wait_timeout(heard, left)
                .expect("nobody panics with the lock")
                .0;
        }
        heard.clone()
    }

    /// Ends it and gives the path back.
    ///
    /// # Panics
    /// When it failed.
    pub fn stop(mut self) -> Path {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("stopped only once");
        thread.join().expect("an endpoint that did not fail")
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("nobody panics with the lock")
    }
}

struct Endpoint {
    name: String,
    rtc: Rtc,
    path: Path,
    mid: Option<Mid>,
    sent: u64,
    /// When the next frame is due; nothing before the connection stands.
    next: Option<Instant>,
    shared: Arc<Shared>,
}

impl Endpoint {
    fn run(mut self) -> Path {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let wake = self.drain();
            let now = Instant::now();
            if self.next.is_some_and(|next| next <= now) {
                self.talk(now);
                continue;
            }
            let wake = wake.min(now + LOOK).min(self.next.unwrap_or(wake));
            match self.path.receive(wake) {
                Some((from, bytes)) => self.listen(from, &bytes),
                None => self.handle(Input::Timeout(Instant::now())),
            }
        }
        self.path
    }

    /// Does all that the library wants done; returns when it wants to be asked again.
    fn drain(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().expect("a library that does not fail") {
                Output::Timeout(at) => return at,
                Output::Transmit(transmit) => self.path.send(transmit.destination, &transmit.contents),
                Output::Event(Event::MediaAdded(added)) => self.mid = Some(added.mid),
                Output::Event(Event::Connected) => self.next = Some(Instant::now()),
                Output::Event(Event::MediaData(data)) => {
                    let mut heard = self.shared.heard();
                    heard.frames += 1;
                    heard.last = data.data.to_vec();
                    drop(heard);
                    self.shared.changed.notify_all();
                }
                Output::Event(_) => {}
            }
        }
    }

    fn talk(&mut self, now: Instant) {
        // After a stall, what is missed is left out.
        self.next = self.next.map(|next| (next + FRAME).max(now));
        let Some(writer) = self.mid.and_then(|mid| self.rtc.writer(mid)) else {
            return;
        };
        let Some(kind) = writer.payload_params().next().map(|params| params.pt()) else {
            return;
        };
        let frame = format!("{} {}", self.name, self.sent).into_bytes();
        let time = MediaTime::new(self.sent * FRAME_SAMPLES, Frequency::FORTY_EIGHT_KHZ);
        self.sent += 1;
        writer.write(kind, now, time, frame).expect("a frame of sound");
    }

    fn listen(&mut self, from: SocketAddr, bytes: &[u8]) {
        let mut heard = self.shared.heard();
        if !heard.senders.contains(&from) {
            heard.senders.push(from);
        }
        drop(heard);
        let to = self.path.address();
        // What is no STUN, DTLS or RTP is dropped.
        match Receive::new(Protocol::Udp, from, to, bytes) {
            Ok(receive) => self.handle(Input::Receive(Instant::now(), receive)),
            Err(_) => self.handle(Input::Timeout(Instant::now())),
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        self.rtc.handle_input(input).expect("a library that does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[test]
    fn two_endpoints_hear_each_other() {
        let site = Site::new();
        let caller = Caller::new(Path::direct(site.at(1, 10_000)));
        let (callee, answer) = Media::answer("callee", Path::direct(site.at(2, 10_000)), caller.offer());
        let caller = caller.start("caller", &answer);
        assert!(callee.hear(10).last.starts_with(b"caller "));
        assert!(caller.hear(10).last.starts_with(b"callee "));
        assert_eq!(callee.hear(1).senders, [site.at(1, 10_000)]);
    }
}
