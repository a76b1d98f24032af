//! Which socket of a group does a datagram go to? The one that it names itself, to a small program that the kernel runs.

use std::{io, net::UdpSocket, os::fd::AsFd as _};

use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX,
    BPF_MEM, BPF_MUL, BPF_RET, BPF_ST, BPF_W, BPF_X, sock_filter,
};

use crate::sys;

/// Gives each datagram for a group of [shared](crate::bind_shared) sockets to the one whose number it names, counted in
/// the order in which they were bound: the number stands in five decimal digits behind the first `mark` in the datagram.
/// `socket` is any of the group. A datagram that names no socket goes to the first one, or to one that the kernel chooses
/// by its sender.
///
/// How far it looks depends on the kernel: 880 bytes from Linux 6.8 on, 128 before.
///
/// # Errors
/// When the kernel does not take it, and goes on to choose.
pub fn steer(socket: &UdpSocket, mark: [u8; 4]) -> io::Result<()> {
    let attach = |reach| sys::steer(socket.as_fd(), &program(u32::from_be_bytes(mark), reach));
    attach(REACH).or_else(|_| attach(REACH_BEFORE))
}

/// A program for packet filters that returns the number of a socket. They know no loops, so that it grows with what it
/// is to look at.
fn program(mark: u32, reach: u32) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for at in 0..reach {
        let found = 4 * (reach - at) - 3;
        program.extend([
            // Past the end of the datagram this ends the program and returns 0.
            step(BPF_LD | BPF_W | BPF_ABS, at),
            sock_filter {
                jf: 2,
                ..step(BPF_JMP | BPF_JEQ | BPF_K, mark)
            },
            step(BPF_LDX | BPF_IMM, at + size_of_val(&mark) as u32),
            step(BPF_JMP | BPF_JA, found),
        ]);
    }
    program.push(step(BPF_RET | BPF_K, NOBODY));
    for digit in 0..DIGITS {
        program.extend([
            step(BPF_LD | BPF_B | BPF_IND, digit),
            step(BPF_ALU | BPF_AND | BPF_K, 0xf),
            step(BPF_ALU | BPF_MUL | BPF_K, 10_u32.pow(DIGITS - 1 - digit)),
            step(BPF_ST, digit),
        ]);
    }
    program.push(step(BPF_LD | BPF_IMM, 0));
    for digit in 0..DIGITS {
        program.extend([step(BPF_LDX | BPF_MEM, digit), step(BPF_ALU | BPF_ADD | BPF_X, 0)]);
    }
    program.push(step(BPF_RET | BPF_A, 0));
    program
}

const fn step(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Bytes at which the mark may begin. The kernel makes eighteen instructions of its own of each, eight bytes long, and
/// `net.core.optmem_max` limits them all: to 128 KiB, and before Linux 6.8 to 20 KiB.
const REACH: u32 = 880;
const REACH_BEFORE: u32 = 128;
/// Decimal digits of a number.
const DIGITS: u32 = 5;
/// No socket has this number.
const NOBODY: u32 = u32::MAX;
/// Return the accumulator; the only one of these that `libc` does not name.
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bind_shared;

    /// Where datagrams arrive that say this.
    fn check(said: &[(&str, usize)]) -> io::Result<()> {
        let first = bind_shared("127.0.0.1:0".parse().expect("an address"))?;
        let to = first.local_addr()?;
        let others = (0..11).map(|_| bind_shared(to)).collect::<io::Result<Vec<_>>>()?;
        let sockets: Vec<UdpSocket> = [first].into_iter().chain(others).collect();
        steer(&sockets[0], *b"-me-")?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        for (text, expected) in said {
            sender.send_to(text.as_bytes(), to)?;
            let socket = &sockets[*expected];
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut bytes = [0; 2000];
            let len = socket.recv(&mut bytes)?;
            assert_eq!(&bytes[..len], text.as_bytes());
        }
        Ok(())
    }

    #[test]
    fn the_first_mark_names_the_socket() -> io::Result<()> {
        let far = format!("{}-me-00011", "x".repeat(100));
        check(&[
            ("-me-00001", 1),
            ("-me-00000 and -me-00001", 0),
            ("--me-00002, whatever -me-00001 says", 2),
            (&far, 11),
            ("-me-00010", 10),
            // Nobody, or half of a number.
            ("", 0),
            ("-mE-00001 and the rest", 0),
            ("-me-0001", 0),
        ])
    }
}
