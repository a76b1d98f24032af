//! Who counts as the client behind a proxy that speaks the PROXY protocol, and who may be one?

use super::*;

const PROXY: &str = "203.0.113.1:4000";

/// A world whose edge has a proxy in front, and takes two connections of one client.
fn world() -> World {
    let mut world = World::new();
    let config = CONFIG.replace("[https]\n", "[https]\nproxy_protocol_from = [\"203.0.113.0/24\"]\n");
    let server = "[server]\nconnections_per_address_max = 2\n";
    world.configure(&format!("{server}{config}"));
    world
}

fn accept(world: &mut World, from: &str) -> Result<ConnId, Refused> {
    let (local, from) = (
        "192.0.2.1:443".parse().expect("an address"),
        from.parse().expect("an address"),
    );
    world.shard.accept(world.now, ListenerId(0), local, from)
}

#[test]
fn the_client_is_counted_and_not_its_proxy() {
    let mut world = world();
    let mut come = |client: &str| {
        let conn = accept(&mut world, PROXY).expect("accepted");
        world.receive(conn, format!("PROXY TCP4 {client} 192.0.2.1 5000 443\r\n").as_bytes());
        (!world.closed.contains(&conn)).then_some(conn)
    };
    let first = come("198.51.100.1").expect("the first one");
    assert!(come("198.51.100.1").is_some());
    assert_eq!(come("198.51.100.1"), None);
    assert!(come("198.51.100.2").is_some());
    world.handle(Input::Eof(first));
    assert!(world.closed.contains(&first));
    // Whoever comes directly counts along.
    assert!(accept(&mut world, "198.51.100.1:1").is_ok());
    assert!(accept(&mut world, "198.51.100.1:2").is_err());
}

#[test]
fn a_proxy_that_names_nobody_is_let_go() {
    let mut world = world();
    let silent = accept(&mut world, PROXY).expect("accepted");
    let wrong = accept(&mut world, PROXY).expect("accepted");
    world.receive(wrong, b"GET / HTTP/1.1\r\n");
    assert_eq!(world.closed, [wrong]);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.closed, [wrong, silent]);
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let mut world = world();
    let conn = accept(&mut world, PROXY).expect("accepted");
    for byte in b"PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\nGET / HTTP/1.1\r\n\r\n" {
        world.receive(conn, &[*byte]);
    }
    let said = &world.written[&conn];
    assert!(said.ends_with(b"this port speaks HTTPS"), "{}", said.escape_ascii());
}

#[test]
fn nobody_else_may_name_a_client() {
    let mut world = world();
    let conn = accept(&mut world, "198.51.100.1:1").expect("accepted");
    world.receive(conn, b"PROXY TCP4 198.51.100.9 192.0.2.1 5000 443\r\n");
    assert_eq!(world.closed, [conn]);
    assert!(world.written[&conn].is_empty());
}
