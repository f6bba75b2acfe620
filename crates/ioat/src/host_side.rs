//! The kernel's end of a TAP link: an address there, so that programs on this machine can reach the
//! stack at the other end.

use std::net::Ipv4Addr;

use netstack::Ipv4Cidr;

use crate::netlink::{Netlink, NetlinkError};

/// Why the kernel's end cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostSideError {
    /// The kernel did not do it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel has the address that the stack was to have.
    #[error(
        "the address {0} is in use: it is this machine's own; give the stack another one of the \
         network"
    )]
    AddressInUse(Ipv4Addr),
    /// The network has room for one host only.
    #[error("{0}/{1} leaves no address for the kernel's end: use a prefix of at most 31 bits")]
    NoRoom(Ipv4Addr, u8),
}

/// Sets the interface up and gives it an address of the stack's network, unless it has one. Returns
/// the kernel's address.
///
/// # Errors
///
/// See [`HostSideError`].
pub fn configure(interface: &str, stack: Ipv4Cidr) -> Result<Ipv4Addr, HostSideError> {
    let mut netlink = Netlink::open()?;
    // Not by binding a socket to it: in a namespace that never had an address, Linux lets any
    // address be bound to.
    if netlink.has_ipv4_address(stack.address)? {
        return Err(HostSideError::AddressInUse(stack.address));
    }
    let link = netlink.link(interface)?;
    let present = netlink.ipv4_addresses(link.index)?;
    if !link.up {
        netlink.set_up(link.index)?;
    }
    if let Some((address, _)) = present.into_iter().find(|(address, _)| stack.contains(*address)) {
        return Ok(address);
    }
    let address = neighbour(stack).ok_or(HostSideError::NoRoom(stack.address, stack.prefix_len))?;
    netlink.add_address(link.index, address, stack.prefix_len)?;
    Ok(address)
}

/// The first host address of the network that is not the stack's.
fn neighbour(stack: Ipv4Cidr) -> Option<Ipv4Addr> {
    let host_bits = u32::MAX.checked_shr(stack.prefix_len.into()).unwrap_or(0);
    let network = stack.address.to_bits() & !host_bits;
    // A /31 has two hosts and no network address (RFC 3021).
    let first = if host_bits == 1 { network } else { network.checked_add(1)? };
    [first, first.checked_add(1)?]
        .into_iter()
        .map(Ipv4Addr::from_bits)
        .find(|address| *address != stack.address && stack.contains(*address))
        .filter(|address| stack.broadcast() != Some(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neighbour_is_the_first_other_host() {
        let neighbour = |text: &str, prefix_len| {
            neighbour(Ipv4Cidr { address: text.parse().unwrap(), prefix_len })
                .map(|address| address.to_string())
        };
        assert_eq!(neighbour("10.77.0.2", 24).as_deref(), Some("10.77.0.1"));
        assert_eq!(neighbour("10.77.0.1", 24).as_deref(), Some("10.77.0.2"));
        assert_eq!(neighbour("10.77.0.4", 31).as_deref(), Some("10.77.0.5"));
        assert_eq!(neighbour("10.77.0.5", 31).as_deref(), Some("10.77.0.4"));
        assert_eq!(neighbour("10.77.0.6", 30).as_deref(), Some("10.77.0.5"));
        assert_eq!(neighbour("10.77.0.2", 32), None);
    }
}
