//! Does the demonstration work in a browser? Headless Chromium logs in, calls and is called through the built edge.

use std::time::{Duration, Instant};

use edgeward_tests::{
    devtools::{Page, chromium},
    edge,
    process::Process,
    site::Site,
    skipped,
};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn an_echo_is_heard_held_and_hung_up() {
    let Some(mut demo) = Demo::start() else { return };
    demo.page.until("document.title === 'Edgeward demo'");
    assert_eq!(demo.page.evaluate("location.pathname"), "/ucassistant/");
    demo.log_in();
    demo.dial("600", "udp");
    demo.hears_itself("udp");

    demo.page.evaluate("edgeward.hold(true)");
    assert_eq!(demo.page.evaluate("edgeward.call.held"), true);
    // We send on; the other side must not. The first second is for what was on its way.
    let heard = "edgeward.stats.received.packets";
    let sent = demo.page.evaluate("edgeward.stats.sent.packets");
    demo.page.until(&format!("edgeward.stats.sent.packets > {sent} + 100"));
    let silent = demo.page.evaluate(heard);
    demo.page.until(&format!("edgeward.stats.sent.packets > {sent} + 200"));
    assert_eq!(demo.page.evaluate(heard), silent, "something is heard on hold");
    demo.page.evaluate("edgeward.hold(false)");
    demo.page.until(&format!("{heard} > {silent} + 50"));
    assert_eq!(demo.page.evaluate("edgeward.call.state"), "up");

    demo.hang_up();
    demo.page.evaluate("edgeward.logOut()");
    assert_eq!(demo.page.evaluate("edgeward.connection"), "offline");
    demo.succeeded();
}

#[test]
fn media_reaches_the_relay_by_tcp_and_tls_as_well() {
    let Some(mut demo) = Demo::start() else { return };
    demo.log_in();
    for transport in ["tcp", "tls"] {
        demo.dial("600", transport);
        demo.hears_itself(transport);
        demo.hang_up();
    }
    demo.succeeded();
}

#[test]
fn the_callback_number_hangs_up_and_calls_back() {
    let Some(mut demo) = Demo::start() else { return };
    demo.log_in();
    demo.dial("601", "udp");
    demo.page.until("edgeward.call.state === 'ended'");
    assert_eq!(demo.page.evaluate("edgeward.call.reason"), "the other side hung up");
    demo.page.until("edgeward.call.state === 'incoming'");
    assert_eq!(demo.page.evaluate("edgeward.call.remote"), "601");
    demo.page.evaluate("edgeward.accept()");
    demo.page.until("edgeward.call.state === 'up'");
    demo.hears_itself("udp");
    demo.hang_up();
    demo.succeeded();
}

#[test]
fn an_interrupt_ends_the_edge_soon_even_in_a_call() {
    let Some(mut demo) = Demo::start() else { return };
    demo.log_in();
    demo.dial("600", "tls");
    demo.hears_itself("tls");
    let started = Instant::now();
    demo.edge.signal(Signal::INT);
    let status = demo.edge.wait();
    let took = started.elapsed();
    eprintln!("the edge ended {took:?} after the interrupt");
    assert_eq!(status.code(), Some(0));
    assert!(took < END_MAX, "{took:?}");
    demo.page.until("!edgeward.registered");
}

/// The demonstration, and a browser that shows its page.
struct Demo {
    page: Page,
    edge: Process,
    _site: Site,
}

impl Demo {
    /// Nothing where there is no browser.
    fn start() -> Option<Self> {
        if chromium().is_none() {
            skipped("Chromium is not installed, so the page of the demonstration was not tried");
            return None;
        }
        let site = Site::new();
        let address = site.host(1).to_string();
        let edge = edge::run(&site, "edgeward demo", &["demo", "--address", &address]);
        edge.wait_for("Ctrl-C ends it");
        let trusted = edge.wait_for(TRUSTED);
        let (_, trusted) = trusted.split_once(TRUSTED).expect("the hash of the key");
        let url = edge.wait_until("what to open", |line| line.trim_start().starts_with("Open "));
        let url = url.split_whitespace().last().expect("a URL");
        let page = Page::open(&site, url, trusted, STATE);
        Some(Self {
            page,
            edge,
            _site: site,
        })
    }

    fn log_in(&mut self) {
        self.page.until("window.edgeward");
        self.page.evaluate("edgeward.logIn('alice', 'wonderland')");
        assert_eq!(self.page.evaluate("edgeward.user"), "alice");
        self.page.until("edgeward.registered");
        self.page.until("edgeward.presence.alice === 'available'");
    }

    /// Calls, and waits for an answer.
    fn dial(&mut self, number: &str, transport: &str) {
        self.page.evaluate(&format!(
            "edgeward.choose({{ transport: '{transport}', source: 'microphone' }})"
        ));
        self.page.evaluate(&format!("edgeward.dial('{number}')"));
        self.page.until("edgeward.call.state === 'up'");
    }

    /// Waits until media flows by the relay, about as much in as out: what is on its way, or was said before the other
    /// side could listen, matters little after a while.
    fn hears_itself(&mut self, transport: &str) {
        let both_ways = "(({ sent, received } = edgeward.stats ?? {}) =>
            received?.packets >= 100 && Math.abs(sent.packets - received.packets) <= sent.packets / 10)()";
        self.page.until(both_ways);
        let local = self.page.evaluate("edgeward.stats.pair.local");
        assert_eq!(
            (&local["type"], &local["relayProtocol"]),
            (&json!("relay"), &json!(transport))
        );
    }

    fn hang_up(&mut self) {
        self.page.evaluate("edgeward.hangUp()");
        self.page.until("edgeward.call.state === 'ended'");
        assert_eq!(self.page.evaluate("edgeward.call.reason"), "hung up");
    }

    /// Nothing has gone wrong that the page would tell a person.
    fn succeeded(&mut self) {
        assert_eq!(self.page.evaluate("edgeward.error"), Value::Null);
    }
}

/// In the banner, before the hash of the key of the certificate.
const TRUSTED: &str = "--ignore-certificate-errors-spki-list=";
/// All that there is to know about the page.
const STATE: &str = "JSON.parse(JSON.stringify({
    ...window.edgeward,
    shown: document.body.innerText,
    messages: [...document.querySelectorAll('#log pre')].map((message) => message.textContent).reverse(),
}))";
/// The edge takes less than a second to end; the rest is for a busy machine.
const END_MAX: Duration = Duration::from_secs(5);
