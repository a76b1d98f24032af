//! Whom does the edge turn away, and why? One line of the log for each, in words that never change, for whoever counts them
//! and shuts out who comes too often.

use core::net::IpAddr;

/// Who turns somebody away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Before it is known what somebody wants.
    Edge,
    /// The web role.
    Web,
    /// The sip role.
    Sip,
    /// The turn role.
    Turn,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Web => "web",
            Self::Sip => "sip",
            Self::Turn => "turn",
        }
    }
}

/// Tells that a client was turned away. `reason` is a stable word; `detail` says more to people, and is ours as well. The
/// runtime leaves lines out when one client makes too many.
///
/// A reason that a datagram alone can bring about must be one of its own: its sender may be somebody else.
pub(crate) fn refused(role: Role, client: IpAddr, reason: &'static str, detail: &'static str) {
    tell(role, client, reason, detail, None);
}

/// The same, with what the client wanted. It comes last and is text to the log, which puts it in quotes and escapes it, so
/// that nobody can forge a line.
pub(crate) fn refused_about(role: Role, client: IpAddr, reason: &'static str, detail: &'static str, about: &str) {
    let mut end = about.len().min(ABOUT_BYTES_MAX);
    while !about.is_char_boundary(end) {
        end -= 1;
    }
    tell(role, client, reason, detail, Some(&about[..end]));
}

fn tell(role: Role, client: IpAddr, reason: &'static str, detail: &'static str, about: Option<&str>) {
    let client = client.to_canonical();
    tracing::info!(target: "edgeward::security", role = role.as_str(), %client, reason, detail, about, "refused");
}

/// As much of what a client said as helps to find the mistake.
const ABOUT_BYTES_MAX: usize = 128;
