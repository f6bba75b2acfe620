//! The ioctls of `<linux/if_tun.h>` and `<linux/sockios.h>` that a TAP needs. All `unsafe` of this
//! crate is in here.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The most bytes of an interface's name: `IFNAMSIZ` without the terminating zero.
pub(super) const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Makes an `ifreq` for the interface `name`, of at most [`NAME_MAX`] bytes.
fn request(name: &str) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().take(NAME_MAX).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } }
}

/// The interface's name that the kernel left in `request`.
fn name(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|byte| byte.cast_unsigned());
    String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>()).into_owned()
}

/// An ioctl that reads and writes an `ifreq`.
fn interface_ioctl(
    fd: BorrowedFd<'_>,
    operation: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: every operation passed by this module takes a pointer to one `ifreq` and keeps no
    // copy of it; `request` is one, exclusively borrowed for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), operation, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `TUNSETIFF`: makes the interface, or attaches to it. Returns its name.
pub(super) fn set_interface(fd: BorrowedFd<'_>, wanted: &str, flags: i32) -> io::Result<String> {
    let mut request = request(wanted);
    // The kernel's field is 16 bits wide, and the flags of `TUNSETIFF` fit it (IFF_VNET_HDR is
    // 0x4000).
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    interface_ioctl(fd, libc::TUNSETIFF, &mut request)?;
    Ok(name(&request))
}

/// `TUNGETIFF`: the flags that the interface has.
pub(super) fn interface_flags(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut request = request("");
    interface_ioctl(fd, libc::TUNGETIFF, &mut request)?;
    // SAFETY: the kernel has written `ifru_flags`, and any bits are a valid integer.
    Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// `SIOCGIFHWADDR`, which a TAP's descriptor answers itself: the Ethernet address of the kernel's
/// end.
pub(super) fn hardware_address(fd: BorrowedFd<'_>) -> io::Result<[u8; 6]> {
    let mut request = request("");
    interface_ioctl(fd, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the kernel has written `ifru_hwaddr`, and any bits are a valid `sockaddr`.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    Ok(std::array::from_fn(|i| data[i].cast_unsigned()))
}

/// `SIOCGIFMTU`, by any socket: the interface's MTU in bytes.
pub(super) fn mtu(socket: BorrowedFd<'_>, interface: &str) -> io::Result<usize> {
    let mut request = request(interface);
    interface_ioctl(socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the kernel has written `ifru_mtu`, and any bits are a valid integer.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(io::Error::other)
}

/// `TUNSETVNETHDRSZ`: the length of the virtio-net header in front of each frame.
pub(super) fn set_header_len(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = libc::c_int::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the operation reads one `int` through the pointer and keeps no copy of it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `TUNSETOFFLOAD`: which incomplete frames this end takes (`TUN_F_*`).
pub(super) fn set_offload(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: the operation takes its argument by value.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
