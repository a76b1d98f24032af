//! Does the edge work with SIPp as its mediaserver? Registrar, callee and caller on the UDP side, a browser on the other.

use edgeward_tests::{
    edge::Edge,
    peers::{
        sip::Message,
        sip_browser::{Account, SipBrowser},
        sipp,
        websocket::Handshake,
    },
    process::Process,
    scene::{CONFIG, HTTPS, SIP},
    site::{NAME, Site},
};

const CALLS: usize = 10;

/// An edge and a place for SIPp.
struct Stage {
    _edge: Edge,
    site: Site,
}

impl Stage {
    fn new() -> Option<Self> {
        if !sipp::is_installed() {
            return None;
        }
        let site = Site::new();
        // SIPp takes questions after its health for calls: one is enough.
        let config = CONFIG.replace(
            "[[sip.mediaserver]]\nname = \"default\"",
            "[sip.health]\ninterval_secs = 3600\n\n[[sip.mediaserver]]\nname = \"default\"",
        );
        Some(Self {
            _edge: Edge::start(&site, &config),
            site,
        })
    }

    fn start(&self, scenario: &str, calls: usize, keys: &[(&str, &str)]) -> Process {
        sipp::start(
            &self.site,
            scenario,
            self.site.at(3, SIP),
            self.site.at(1, SIP),
            calls,
            keys,
        )
    }

    /// A browser that is registered with SIPp, and its Path there.
    fn registered(&self) -> (SipBrowser, String) {
        let target = "/wssip?token=token";
        let edge = self.site.at(1, HTTPS);
        let handshake = Handshake::tls(self.site.host(100), edge, self.site.client(), NAME, target)
            .with("Origin", &format!("https://{NAME}:{HTTPS}"));
        let account = Account::of("alice");
        let keys = [("user", account.user.as_str()), ("password", account.password.as_str())];
        // One of its calls is a question after its health; it ends when the browser has what it wants.
        let registrar = self.start("registrar", CALLS, &keys);
        let mut browser = SipBrowser::open(&handshake, account.clone()).expect("a WebSocket");
        let accepted = browser.register();
        drop(registrar);
        assert_eq!(accepted.contact(), Some(browser.contact()));
        let path = accepted.field("Path").expect("a Path").to_owned();
        (browser, path)
    }
}

#[test]
fn a_browser_calls_sipp() {
    let Some(stage) = Stage::new() else { return };
    let (mut browser, _) = stage.registered();
    let callee = stage.start("callee", CALLS, &[]);
    for _ in 0..CALLS {
        let invite = browser.invite("600", "");
        browser.provisional(&invite, 180);
        let (_, mut dialog) = browser.answered(&invite);
        let offer = dialog
            .request("INVITE")
            .with("Contact", format_args!("<{}>", browser.contact()));
        let offer = browser.send(offer);
        assert_eq!(browser.final_answer(&offer).status(), Some(200));
        browser.send(dialog.request("ACK"));
        assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
    }
    sipp::finish(&stage.site, "callee", callee);
}

#[test]
fn sipp_calls_a_browser() {
    let Some(stage) = Stage::new() else { return };
    let (mut browser, path) = stage.registered();
    let contact = browser.contact().to_owned();
    let keys = [("contact", contact.as_str()), ("path", path.as_str())];
    let caller = stage.start("caller", CALLS, &keys);
    for _ in 0..CALLS {
        let invite = browser.invited();
        browser.accept(&invite, "");
        browser.requested("BYE");
    }
    sipp::finish(&stage.site, "caller", caller);

    let canceller = stage.start("canceller", CALLS, &keys);
    for _ in 0..CALLS {
        let invite = browser.invited();
        browser.send(Message::answer(&invite, 180, "Ringing", "tag"));
        let cancel = browser.requested("CANCEL");
        assert_eq!(cancel.call_id(), invite.call_id());
        browser.send(Message::answer(&invite, 487, "Request Terminated", "tag"));
    }
    sipp::finish(&stage.site, "canceller", canceller);
}
