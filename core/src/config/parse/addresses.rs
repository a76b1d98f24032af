//! How are addresses, networks and ports written?

use core::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use toml::de::DeValue;

use super::{
    reader::{Reader, Value},
    values::{number, words},
};

/// An address and a port to listen on or to send to.
pub(super) fn socket_address(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<SocketAddr> {
    let wanted = "an address with a port";
    let example = "it like \"192.0.2.10:443\" or \"[2001:db8::10]:443\"";
    let text = words(cx, value, wanted, example)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        let example = match address {
            IpAddr::V4(_) => format!("\"{address}:PORT\""),
            IpAddr::V6(_) => format!("\"[{address}]:PORT\""),
        };
        return cx.refuse_value(value, wanted, &example);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        return cx.refuse_value(value, wanted, example);
    };
    if address.port() == 0 {
        return cx.refuse_value(value, "an address with a port that others can know", "another port");
    }
    check_usable(cx, value, address.ip())?;
    Some(address)
}

/// An address, with a port or with `port`.
pub(super) fn socket_address_or(port: u16) -> impl Fn(&mut Reader<'_>, &Value<'_>) -> Option<SocketAddr> {
    move |cx, value| match value.get_ref() {
        DeValue::String(text) if text.parse::<IpAddr>().is_ok() => Some(SocketAddr::new(address(cx, value)?, port)),
        _ => socket_address(cx, value),
    }
}

/// An address without a port.
pub(super) fn address(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<IpAddr> {
    let wanted = "an address";
    let example = "it like \"192.0.2.10\" or \"2001:db8::10\", without a port";
    let text = words(cx, value, wanted, example)?;
    let Ok(address) = text.parse() else {
        return cx.refuse_value(value, wanted, example);
    };
    check_usable(cx, value, address)?;
    Some(address)
}

/// The address of somebody else, or of ours as others see it.
pub(super) fn exact_address(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<IpAddr> {
    let address = address(cx, value)?;
    if address.is_unspecified() {
        return cx.refuse_value(value, "an address that can be reached", "the one that others use");
    }
    Some(address)
}

fn check_usable(cx: &mut Reader<'_>, value: &Value<'_>, address: IpAddr) -> Option<()> {
    if address.is_multicast() || address == IpAddr::from([255; 4]) {
        return cx.refuse_value(value, "the address of one host", "a unicast address");
    }
    // RFC 4291 section 2.5.5.2: a mapped address is IPv4 in another dress, and would be compared as IPv6.
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return cx.refuse_value(value, "written in its own family", &format!("{v4} instead"));
    }
    Some(())
}

/// A network, or one address.
pub(super) fn net(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<IpNet> {
    let wanted = "a network";
    let example = "it like \"10.0.0.0/8\", or one address";
    let text = words(cx, value, wanted, example)?;
    if text.parse::<IpAddr>().is_ok() {
        return address(cx, value).map(IpNet::from);
    }
    match text.parse::<IpNet>() {
        Ok(net) if net == net.trunc() => Some(net),
        Ok(net) => cx.refuse_value(
            value,
            "a network: it has bits behind its prefix",
            &format!("\"{}\", or \"{}\" for the one address", net.trunc(), net.addr()),
        ),
        Err(_) => cx.refuse_value(value, wanted, example),
    }
}

/// A range of ports like `"10000-20000"`, or one port.
pub(super) fn ports(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<RangeInclusive<u16>> {
    let wanted = "a range of ports";
    let example = "it like \"10000-20000\", or one port like 10000";
    if let DeValue::Integer(_) = value.get_ref() {
        let port = number(1..=65_535)(cx, value)?;
        return Some(port..=port);
    }
    let text = words(cx, value, wanted, example)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) else {
        return cx.refuse_value(value, wanted, example);
    };
    if first > last {
        return cx.refuse_value(
            value,
            "a range of ports: it ends before it begins",
            &format!("\"{last}-{first}\""),
        );
    }
    if first == 0 {
        return cx.refuse_value(value, "a range of ports: there is no port 0", &format!("\"1-{last}\""));
    }
    Some(first..=last)
}
