//! What does a browser see when an upstream is tired, slow, deaf, talkative or hard to find?

use super::*;
use crate::action::{Addresses, ResolveError};

#[test]
fn a_request_that_met_the_end_of_a_tired_connection_is_sent_again() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let tired = world.answer_dial();
    world.receive(tired, ANSWER.as_bytes());
    world.asked(tired);
    world.send(&mut browser, &get("/ucassistant/again"));
    world.handle(Input::Eof(tired));
    let fresh = world.answer_dial();
    assert!(world.asked(fresh).starts_with("GET /ucassistant/again "));
    world.receive(fresh, ANSWER.as_bytes());
    let pages = world.read(&mut browser);
    assert_eq!(pages.matches("HTTP/1.1 200 OK").count(), 2, "{pages}");
    // The fresh connection is as good as any other.
    world.send(&mut browser, &get("/ucassistant/more"));
    assert!(world.asked(fresh).starts_with("GET /ucassistant/more "));
}
