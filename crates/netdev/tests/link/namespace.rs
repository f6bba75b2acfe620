//! A network namespace for each test, and the kernel's end of a TAP in it.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    thread,
};

use rustix::thread::UnshareFlags;

/// Set in the child that has a user namespace already.
const CHILD: &str = "NETDEV_TEST_IN_USER_NAMESPACE";

/// Runs `body` on a thread with a fresh network namespace. Root makes it directly; anybody else
/// runs the test `name` again in a child process that has a user namespace.
///
/// A machine that allows neither fails the test: it says what is missing, and skips nothing.
pub(crate) fn in_namespace(name: &str, body: fn()) {
    let made = thread::spawn(move || {
        unshare(UnshareFlags::NEWNET)?;
        body();
        Ok::<(), io::Error>(())
    });
    match made.join() {
        Ok(Ok(())) => {}
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(Err(error)) if std::env::var_os(CHILD).is_some() => {
            panic!("no network namespace inside the user namespace: {error}")
        }
        Ok(Err(_)) => run_again_in_user_namespace(name),
    }
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags leave the table of file descriptors shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

fn run_again_in_user_namespace(name: &str) {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    // SAFETY: between fork and exec the closure makes system calls only; std keeps paths as short as
    // these on the stack, so no lock that another thread held at the fork is waited for.
    unsafe {
        child.pre_exec(move || {
            unshare(UnshareFlags::NEWUSER)?;
            maps.iter().try_for_each(|(path, map)| std::fs::write(path, map))
        });
    }
    let status = child.status().expect(
        "this test needs user namespaces or root: sysctl user.max_user_namespaces, \
         kernel.apparmor_restrict_unprivileged_userns",
    );
    assert!(status.success(), "the test failed in its user namespace: {status}");
}

/// Sets the interface up.
pub(crate) fn set_up(interface: &str) {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let mut request = request(interface);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `SIOCSIFFLAGS` reads one `ifreq` through the pointer.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Sets the interface's MTU.
pub(crate) fn set_mtu(interface: &str, mtu: i32) {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let mut request = request(interface);
    request.ifr_ifru.ifru_mtu = mtu;
    // SAFETY: `SIOCSIFMTU` reads one `ifreq` through the pointer.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw mut request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Whether the interface exists.
pub(crate) fn exists(interface: &str) -> bool {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    rustix::net::netdevice::name_to_index(socket, interface).is_ok()
}

/// Deletes the interface, as `ip link delete` does.
pub(crate) fn delete(interface: &str) {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
    let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
    // struct nlmsghdr (length, type, flags, sequence, port), then struct ifinfomsg, whose second
    // 32-bit word is the index: rtnetlink(7).
    let mut message = [0; 32];
    message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    assert_eq!(rustix::io::write(&socket, &message), Ok(32));
    let mut answer = [0; 128];
    rustix::io::read(&socket, &mut answer).unwrap();
    // struct nlmsgerr behind the header: the error, 0 for success.
    assert_eq!(answer[16..20], [0; 4]);
}

fn request(interface: &str) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } }
}

fn socket(family: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The kernel's end, by a packet socket that speaks the virtio-net header too.
pub(crate) struct KernelEnd(OwnedFd);

impl KernelEnd {
    /// Sends to, and receives from, `interface`, only frames of the Ethernet type `protocol`.
    pub(crate) fn new(interface: &str, protocol: u16) -> Self {
        let protocol = protocol.to_be();
        let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
        let one: libc::c_int = 1;
        // SAFETY: the option's value is an `int`, of the length given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const one).cast(),
                size_of_val(&one) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a `sockaddr_ll`, of the length given.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    /// Sends one frame with this virtio-net header.
    pub(crate) fn send(&self, header: [u8; 10], frame: &[u8]) {
        let all = [&header, frame].concat();
        assert_eq!(rustix::io::write(&self.0, &all), Ok(all.len()));
    }

    /// Waits for one frame and returns it with its virtio-net header.
    pub(crate) fn receive(&self) -> ([u8; 10], Vec<u8>) {
        let mut all = vec![0; 70_000];
        let len = rustix::io::read(&self.0, &mut all).unwrap();
        let frame = all[10..len].to_vec();
        (all[..10].try_into().unwrap(), frame)
    }
}
