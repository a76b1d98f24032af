//! How is a head written? Numbers and fields into an output buffer, without allocation.

use core::{fmt::Write as _, net::IpAddr};

use bytes::BytesMut;

/// Decimal digits of a `u64`.
const DECIMAL_DIGITS_MAX: usize = 20;

/// Room for a head is made at once: a buffer that grows with every field is moved again and again.
pub(super) const HEAD_BYTES_USUAL: usize = 1024;

/// Adds a field line.
pub(super) fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Adds a number in decimal.
pub(super) fn decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0; DECIMAL_DIGITS_MAX];
    let mut start = DECIMAL_DIGITS_MAX;
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Adds a number in hexadecimal, with no more digits than needed.
pub(super) fn hexadecimal(out: &mut BytesMut, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1) as usize;
    let mut text = [0; 16];
    for (index, digit) in text[..digits].iter_mut().rev().enumerate() {
        *digit = hex_digit((number >> (4 * index)) as u8 & 0xf);
    }
    out.extend_from_slice(&text[..digits]);
}

/// Adds 32 hexadecimal digits.
pub(super) fn hexadecimal_id(out: &mut BytesMut, id: u128) {
    let digits = id
        .to_be_bytes()
        .map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
    out.extend_from_slice(digits.as_flattened());
}

/// Adds an address.
pub(super) fn address(out: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(b".");
                }
                decimal(out, u64::from(octet));
            }
        }
        // Writing into a buffer that grows never fails.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

const fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[value as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 65_535, 1_000_000, u64::MAX] {
            let mut out = BytesMut::new();
            decimal(&mut out, number);
            out.extend_from_slice(b" ");
            hexadecimal(&mut out, number);
            assert_eq!(out, format!("{number} {number:x}").as_bytes());
        }
        let mut out = BytesMut::new();
        hexadecimal_id(&mut out, 0xab << 64);
        assert_eq!(out, format!("{:032x}", 0xab_u128 << 64).as_bytes());
    }

    #[test]
    fn addresses() {
        for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::"] {
            let mut out = BytesMut::new();
            address(&mut out, text.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }
}
