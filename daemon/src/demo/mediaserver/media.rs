//! Who is at the other end of the media? An echo: one WebRTC session (ICE, DTLS-SRTP) that sends back what it hears.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Instant,
};

use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError,
    change::{SdpAnswer, SdpOffer, SdpPendingOffer},
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::{RtpPacket, RtpWrite, Ssrc},
};
use tokio::{net::UdpSocket, time::sleep_until};

use crate::demo::directory::random;

/// Ports that are tried until one is free.
const BIND_TRIES: u16 = 100;
/// Largest datagram that is looked at; WebRTC sends none above the MTU.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// The media of one call.
#[derive(Debug)]
pub(super) struct Media {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    /// Our offer, until it is answered.
    offered: Option<SdpPendingOffer>,
    audio: Option<Mid>,
    echo: Option<Echo>,
    buffer: Vec<u8>,
    timeout: Instant,
    /// Packets sent back so far.
    pub(super) packets: u64,
}

/// What happens to the media of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaEvent {
    /// ICE and DTLS are through.
    Connected,
    /// The other side has closed or is gone.
    Closed,
}

/// How the numbers of what is heard become those of what is sent back: gaps stay, so that a loss on the way here shows
/// as a loss at home, and a new source goes on where the one before ended.
#[derive(Debug, Clone, Copy)]
struct Echo {
    heard: Ssrc,
    first_heard: u64,
    first_sent: u64,
    last_sent: u64,
}

impl Media {
    /// Opens a socket on one of the ports.
    pub(super) async fn open(ip: IpAddr, ports: &RangeInclusive<u16>) -> io::Result<Self> {
        let (socket, local) = bind(ip, ports).await?;
        // Until the kernel has said so once, `try_send_to` takes a new socket for full.
        socket.writable().await?;
        let now = Instant::now();
        let mut rtc = RtcConfig::new()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .build(now);
        let candidate = Candidate::host(local, "udp").map_err(io::Error::other)?;
        rtc.add_local_candidate(candidate);
        Ok(Self {
            rtc,
            socket,
            local,
            offered: None,
            audio: None,
            echo: None,
            buffer: vec![0; DATAGRAM_BYTES_MAX],
            timeout: now,
            packets: 0,
        })
    }

    /// Answers an offer, the first or a later one.
    pub(super) fn answer(&mut self, offer: &str) -> Result<String, RtcError> {
        let offer = SdpOffer::from_sdp_string(offer)?;
        let answer = self.rtc.sdp_api().accept_offer(offer)?;
        self.drain()?;
        Ok(answer.to_sdp_string())
    }

    /// Offers to talk.
    pub(super) fn offer(&mut self) -> Result<String, RtcError> {
        let mut change = self.rtc.sdp_api();
        self.audio = Some(change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None));
        let (offer, pending) = change.apply().expect("an added medium is a change");
        self.offered = Some(pending);
        Ok(offer.to_sdp_string())
    }

    /// Takes the answer to our offer.
    pub(super) fn answered(&mut self, answer: &str) -> Result<(), RtcError> {
        let answer = SdpAnswer::from_sdp_string(answer)?;
        if let Some(offered) = self.offered.take() {
            self.rtc.sdp_api().accept_answer(offered, answer)?;
        }
        self.drain()?;
        Ok(())
    }

    /// Sends and receives until there is something to tell. It may be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> MediaEvent {
        loop {
            let result = tokio::select! {
                received = self.socket.recv_from(&mut self.buffer) => match received {
                    Ok((len, source)) => self.receive(len, source),
                    // An ICMP error: ICE finds out by itself whether the way is gone.
                    Err(_) => Ok(()),
                },
                () = sleep_until(self.timeout.into()) => self.rtc.handle_input(Input::Timeout(Instant::now())),
            };
            match result.and_then(|()| self.drain()) {
                Ok(Some(event)) => return event,
                Ok(None) if self.rtc.is_alive() => {}
                Ok(None) => return MediaEvent::Closed,
                Err(error) => {
                    tracing::debug!(%error, "media failed");
                    return MediaEvent::Closed;
                }
            }
        }
    }

    fn receive(&mut self, len: usize, source: SocketAddr) -> Result<(), RtcError> {
        let Ok(contents) = self.buffer[..len].try_into() else {
            return Ok(());
        };
        let receive = Receive {
            proto: Protocol::Udp,
            source,
            destination: self.local,
            contents,
        };
        self.rtc.handle_input(Input::Receive(Instant::now(), receive))
    }

    /// Carries out what the session wants until it wants time to pass.
    fn drain(&mut self) -> Result<Option<MediaEvent>, RtcError> {
        let mut told = None;
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return Ok(told);
                }
                Output::Transmit(transmit) => {
                    // UDP may lose it, and so may we.
                    let _ = self.socket.try_send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::RtpPacket(packet)) => self.send_back(packet),
                Output::Event(Event::MediaAdded(added)) => self.audio = self.audio.or(Some(added.mid)),
                Output::Event(Event::Connected) => told = told.or(Some(MediaEvent::Connected)),
                Output::Event(Event::Closed | Event::IceConnectionStateChange(IceConnectionState::Disconnected)) => {
                    told = Some(MediaEvent::Closed)
                }
                Output::Event(_) => {}
            }
        }
    }

    fn send_back(&mut self, packet: RtpPacket) {
        let Some(mid) = self.audio else { return };
        // On hold the other side does not want to hear anything.
        if !self.rtc.media(mid).is_some_and(|audio| audio.direction().is_sending()) {
            return;
        }
        let number = Echo::number(&mut self.echo, packet.header.ssrc, *packet.seq_no);
        let header = packet.header;
        let write = RtpWrite::new(
            header.payload_type,
            number.into(),
            header.timestamp,
            packet.timestamp,
            packet.payload,
        );
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            stream.write_rtp(write.marker(header.marker));
            self.packets += 1;
        }
    }
}

impl Echo {
    /// The sequence number to send under.
    fn number(echo: &mut Option<Self>, heard: Ssrc, number: u64) -> u64 {
        let next = echo.map_or(number & 0xffff, |echo| echo.last_sent + 1);
        let echo = match echo {
            Some(echo) if echo.heard == heard => echo,
            other => other.insert(Self {
                heard,
                first_heard: number,
                first_sent: next,
                last_sent: next,
            }),
        };
        // What overtook the very first packet has a number before it.
        let sent = (echo.first_sent + number).saturating_sub(echo.first_heard);
        echo.last_sent = echo.last_sent.max(sent);
        sent
    }
}

async fn bind(ip: IpAddr, ports: &RangeInclusive<u16>) -> io::Result<(UdpSocket, SocketAddr)> {
    let count = u32::from(*ports.end()) - u32::from(*ports.start()) + 1;
    let mut port = u32::from_be_bytes(random()) % count;
    for _ in 0..BIND_TRIES {
        port = (port + 1) % count;
        let port = ports.start() + u16::try_from(port).expect("within the range of ports");
        match UdpSocket::bind((ip, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result.map(|socket| (socket, SocketAddr::new(ip, port))),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_gaps_and_never_go_back_with_a_new_source() {
        let mut echo = None;
        let mut check = |ssrc: u32, heard, sent| assert_eq!(Echo::number(&mut echo, ssrc.into(), heard), sent);
        check(1, 100, 100);
        check(1, 101, 101);
        check(1, 105, 105);
        check(1, 104, 104);
        check(2, 7, 106);
        check(2, 9, 108);
        check(2, 6, 105);
        check(3, 65_000, 109);
    }
}
