//! How does the kernel take and give many datagrams in one call? The only unsafe code of the workspace: batches with
//! control messages, which no safe wrapper offers, and the options and error queue that go with them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

use libc::c_int;

/// What the kernel tells about a run beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) peer: SocketAddr,
    /// The address it was sent to, where the socket asks for it.
    pub(crate) local: Option<IpAddr>,
    /// DSCP and ECN, where the socket asks for them.
    pub(crate) traffic_class: u8,
    pub(crate) len: usize,
    /// Length of each datagram in the run.
    pub(crate) stride: usize,
    /// Datagrams that the socket had dropped until then, once there are any; wraps.
    pub(crate) dropped: Option<u32>,
}

/// A datagram, or a train of them, to be sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) peer: SocketAddr,
    /// The address to send from.
    pub(crate) local: Option<IpAddr>,
    /// DSCP and ECN. 0 is what a socket says by itself.
    pub(crate) traffic_class: u8,
    /// Length of each datagram of a train, but perhaps of the last.
    pub(crate) segment: Option<u16>,
    /// How many datagrams it is.
    pub(crate) datagrams: usize,
    /// Where its bytes are among the slices of the call.
    pub(crate) slices: Range<usize>,
}

impl Message {
    /// Whether the kernel must be told more than bytes and destination.
    fn has_control(&self) -> bool {
        self.segment.is_some() || self.local.is_some() || self.traffic_class != 0
    }
}

/// What the kernel tells about a datagram that came to nothing.
#[derive(Debug)]
pub(crate) struct Report {
    /// Where it was sent to.
    pub(crate) peer: SocketAddr,
    /// What the kernel says of it.
    pub(crate) error: libc::sock_extended_err,
}

/// Runs and datagrams in one call at most.
pub(crate) const MESSAGES_MAX: usize = 64;

/// Receives a run into each buffer, as many as there are; appends to `metas` what they are. Returns how many.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    metas: &mut Vec<Meta>,
) -> io::Result<usize> {
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_MAX];
    let mut names = [const { MaybeUninit::<Name>::uninit() }; MESSAGES_MAX];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MESSAGES_MAX];
    let count = buffers.len().min(MESSAGES_MAX);
    for (n, buffer) in buffers[..count].iter_mut().enumerate() {
        headers[n].write(header(
            names[n].as_mut_ptr(),
            size_of::<Name>(),
            ptr::from_mut(buffer).cast(),
            1,
            controls[n].as_mut_ptr(),
            size_of::<Control>(),
        ));
    }
    // SAFETY: the first `count` headers are written, and all they point to lives and is not touched until the call is
    // over: names and controls may be written up to the lengths given, and an `IoSliceMut` is an `iovec`.
    let received = check(unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count as _,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    })?;
    for (header, name) in headers.iter().zip(&names).take(received) {
        // SAFETY: all received headers were written above. The kernel filled their names, and their control messages
        // are still where the header points to.
        let meta = unsafe {
            let header = header.assume_init_ref();
            let peer = address(name.as_ptr(), header.msg_hdr.msg_namelen);
            meta(&header.msg_hdr, header.msg_len as usize, peer)
        };
        metas.push(meta);
    }
    Ok(received)
}

/// Sends messages in order, as many as the kernel takes; returns how many. An error is that of the first one.
pub(crate) fn send(socket: BorrowedFd<'_>, messages: &[Message], slices: &[IoSlice<'_>]) -> io::Result<usize> {
    if let [message] = messages
        && !message.has_control()
        && let [bytes] = &slices[message.slices.clone()]
    {
        return send_alone(socket, message.peer, bytes).map(|()| 1);
    }
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_MAX];
    let mut names = [const { MaybeUninit::<Name>::uninit() }; MESSAGES_MAX];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MESSAGES_MAX];
    let count = messages.len().min(MESSAGES_MAX);
    for (n, message) in messages[..count].iter().enumerate() {
        let slices = &slices[message.slices.clone()];
        let name_len = write_name(&mut names[n], message.peer);
        let mut header = header(
            names[n].as_mut_ptr(),
            name_len,
            slices.as_ptr().cast_mut().cast(),
            slices.len(),
            ptr::null_mut::<Control>(),
            0,
        );
        if message.has_control() {
            let control = controls[n].write(Control([0; CONTROL_BYTES]));
            header.msg_hdr.msg_controllen = write_control(control, message) as _;
            header.msg_hdr.msg_control = ptr::from_mut(control).cast();
        }
        headers[n].write(header);
    }
    let (fd, headers) = (socket.as_raw_fd(), headers.as_mut_ptr());
    // SAFETY: the first `count` headers are written, and all they point to lives until the call is over: it is only
    // read, despite the type of the pointers. An `IoSlice` is an `iovec`, and an `mmsghdr` begins with its `msghdr`.
    unsafe {
        match count {
            1 => check(libc::sendmsg(fd, headers.cast(), libc::MSG_DONTWAIT) as c_int).map(|_bytes| 1),
            _ => check(libc::sendmmsg(fd, headers.cast(), count as _, libc::MSG_DONTWAIT)),
        }
    }
}

/// Sends one datagram as it lies there. What leaves by a relay is mostly alone, and cheaper without headers for the kernel
/// to copy.
fn send_alone(socket: BorrowedFd<'_>, peer: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut name = MaybeUninit::<Name>::uninit();
    let name_len = write_name(&mut name, peer);
    // SAFETY: bytes and name are as long as said, and are only read.
    check(unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT,
            name.as_ptr().cast(),
            name_len as _,
        ) as c_int
    })
    .map(drop)
}

/// Takes one report from the error queue, which `IP_RECVERR` fills.
pub(crate) fn receive_report(socket: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    let mut name = MaybeUninit::<Name>::uninit();
    let mut control = MaybeUninit::<ReportControl>::uninit();
    // The datagram itself comes along; it is of no interest.
    let mut header = header(
        name.as_mut_ptr(),
        size_of::<Name>(),
        ptr::null_mut(),
        0,
        control.as_mut_ptr(),
        size_of::<ReportControl>(),
    )
    .msg_hdr;
    // SAFETY: the header points to a name and a control buffer of the lengths given, and to no slices.
    let result = check(unsafe {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        libc::recvmsg(socket.as_raw_fd(), &mut header, flags) as c_int
    });
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        result => result?,
    };
    let mut error = None;
    // SAFETY: the kernel filled the name and the control messages, and a report is of the type its kind says.
    let peer = unsafe {
        each_control(&header, |kind, data| {
            if let (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) = kind {
                error = Some(data.cast::<libc::sock_extended_err>().read_unaligned());
            }
        });
        address(name.as_ptr(), header.msg_namelen)
    };
    Ok(error.map(|error| Report { peer, error }))
}

/// Sets an option whose value is a number.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the value is as long as said.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            size_of::<c_int>() as _,
        )
    })
    .map(drop)
}

/// Has a program choose the socket for each datagram of a group that shares a port.
pub(crate) fn steer(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as _,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the value is as long as said, and points to as many steps as said, which are only read.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&program).cast(),
            size_of::<libc::sock_fprog>() as _,
        )
    })
    .map(drop)
}

/// Lets the timers of this thread expire within a microsecond of their time, instead of the usual 50.
pub(crate) fn sharpen_timers() -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) }).map(drop)
}

/// Processor time that this thread has used.
pub(crate) fn thread_time() -> io::Result<Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes the time, or fails.
    unsafe {
        check(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()))?;
        let time = time.assume_init();
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// An address of either family, as the kernel has it.
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for the control messages of a run, or of a message.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Room for the control messages of a [`Report`].
#[repr(C, align(8))]
struct ReportControl([u8; 128]);

/// The larger of what is received, address and segment and drops and traffic class, and what is sent.
// SAFETY: only calculates.
const CONTROL_BYTES: usize =
    unsafe { libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as _) + 3 * libc::CMSG_SPACE(size_of::<c_int>() as _) }
        as usize;

/// A header that points to these things. They are dereferenced by the kernel only.
fn header<C>(
    name: *mut Name,
    name_len: usize,
    slices: *mut libc::iovec,
    slices_len: usize,
    control: *mut C,
    control_len: usize,
) -> libc::mmsghdr {
    // SAFETY: all zeros is a valid header. Some systems have more fields than these.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = name.cast();
    header.msg_hdr.msg_namelen = name_len as _;
    header.msg_hdr.msg_iov = slices;
    header.msg_hdr.msg_iovlen = slices_len as _;
    header.msg_hdr.msg_control = control.cast();
    header.msg_hdr.msg_controllen = control_len as _;
    header
}

/// # Safety
/// The kernel has filled the header, and its control messages are there.
unsafe fn meta(header: &libc::msghdr, len: usize, peer: SocketAddr) -> Meta {
    let mut meta = Meta {
        peer,
        local: None,
        traffic_class: 0,
        len,
        stride: len,
        dropped: None,
    };
    // SAFETY: as promised by the caller, and each message is of the type its kind says.
    unsafe {
        each_control(header, |kind, data| match kind {
            (libc::SOL_UDP, libc::UDP_GRO) => meta.stride = data.cast::<c_int>().read_unaligned() as usize,
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => meta.dropped = Some(data.cast::<u32>().read_unaligned()),
            // One byte here, but a number for IPv6.
            (libc::IPPROTO_IP, libc::IP_TOS) => meta.traffic_class = *data,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                meta.traffic_class = data.cast::<c_int>().read_unaligned() as u8;
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = data.cast::<libc::in_pktinfo>().read_unaligned().ipi_addr.s_addr;
                meta.local = Some(Ipv4Addr::from_bits(u32::from_be(address)).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.cast::<libc::in6_pktinfo>().read_unaligned().ipi6_addr.s6_addr;
                meta.local = Some(Ipv6Addr::from(address).into());
            }
            _ => {}
        });
    }
    meta
}

/// Calls `visit` with level and type, and the data, of each control message.
///
/// # Safety
/// The kernel has filled the header, and its control messages are there.
unsafe fn each_control(header: &libc::msghdr, mut visit: impl FnMut((c_int, c_int), *const u8)) {
    // SAFETY: as promised by the caller. No reference is made to a message: it would not reach to its data.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            visit(((*control).cmsg_level, (*control).cmsg_type), libc::CMSG_DATA(control));
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Writes the control messages of a message; returns the bytes used.
fn write_control(control: &mut Control, message: &Message) -> usize {
    let mut used = 0;
    if let Some(segment) = message.segment {
        used += control.write(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    if message.traffic_class != 0 {
        let (level, kind) = match message.peer {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used += control.write(used, level, kind, c_int::from(message.traffic_class));
    }
    match message.local {
        Some(IpAddr::V4(local)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: local.to_bits().to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += control.write(used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(local)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: local.octets(),
                },
                ipi6_ifindex: 0,
            };
            used += control.write(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    used
}

impl Control {
    /// Writes one control message at this offset; returns the room it takes.
    fn write<T>(&mut self, offset: usize, level: c_int, kind: c_int, value: T) -> usize {
        // SAFETY: only calculates.
        let (len, space) = unsafe {
            (
                libc::CMSG_LEN(size_of::<T>() as _),
                libc::CMSG_SPACE(size_of::<T>() as _),
            )
        };
        let room = &mut self.0[offset..offset + space as usize];
        // SAFETY: there is room for header and data. The offset is a sum of spaces, so the header is aligned; the data
        // need not be. All zeros is a valid header, and some systems have more fields than these.
        unsafe {
            let control = room.as_mut_ptr().cast::<libc::cmsghdr>();
            let mut header: libc::cmsghdr = mem::zeroed();
            header.cmsg_level = level;
            header.cmsg_type = kind;
            header.cmsg_len = len as _;
            control.write(header);
            libc::CMSG_DATA(control).cast::<T>().write_unaligned(value);
        }
        space as usize
    }
}

/// Returns the length of the name.
fn write_name(name: &mut MaybeUninit<Name>, address: SocketAddr) -> usize {
    // SAFETY: all zeros is a valid address of either family. Some systems have more fields than these.
    unsafe {
        match address {
            SocketAddr::V4(address) => {
                let mut v4: libc::sockaddr_in = mem::zeroed();
                v4.sin_family = libc::AF_INET as _;
                v4.sin_port = address.port().to_be();
                v4.sin_addr.s_addr = address.ip().to_bits().to_be();
                name.write(Name { v4 });
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                let mut v6: libc::sockaddr_in6 = mem::zeroed();
                v6.sin6_family = libc::AF_INET6 as _;
                v6.sin6_port = address.port().to_be();
                v6.sin6_flowinfo = address.flowinfo();
                v6.sin6_addr.s6_addr = address.ip().octets();
                v6.sin6_scope_id = address.scope_id();
                name.write(Name { v6 });
                size_of::<libc::sockaddr_in6>()
            }
        }
    }
}

/// A name that is none becomes the unspecified address.
///
/// # Safety
/// `len` bytes of the name are written.
unsafe fn address(name: *const Name, len: libc::socklen_t) -> SocketAddr {
    // SAFETY: the family says which of the two it is, and the length that it is there.
    unsafe {
        match len as usize {
            len if len >= size_of::<libc::sockaddr_in6>()
                && (*name).v6.sin6_family == libc::AF_INET6 as libc::sa_family_t =>
            {
                let v6 = (*name).v6;
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into()
            }
            len if len >= size_of::<libc::sockaddr_in>()
                && (*name).v4.sin_family == libc::AF_INET as libc::sa_family_t =>
            {
                let v4 = (*name).v4;
                let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
                SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
            }
            _ => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// A negative result is an error.
fn check(result: c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
