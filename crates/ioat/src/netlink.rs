//! The few things that the `ip` tool would be needed for, over rtnetlink(7).

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No rtnetlink socket.
    #[error("no rtnetlink socket: {0}")]
    Socket(#[source] io::Error),
    /// No link of that name in this network namespace.
    #[error("there is no link {name} here: see `ip link`")]
    NoSuchLink {
        /// The name.
        name: String,
    },
    /// This user may not.
    #[error("no right to {action}: run as root, or with CAP_NET_ADMIN")]
    Forbidden {
        /// What was to be done.
        action: String,
    },
    /// It exists already.
    #[error("cannot {action}: it exists already")]
    Exists {
        /// What was to be done.
        action: String,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was to be done.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A link, as the kernel sees it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// What other calls name it by.
    pub index: u32,
    /// The most bytes behind the Ethernet header.
    pub mtu: u32,
    /// Whether it was set up.
    pub up: bool,
    /// Whether the other end is there: for a TAP, whether a program has it open.
    pub carrier: bool,
}

/// A connection to the kernel, for the network namespace that the opening thread was in.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Socket)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Looks a link up by its name.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchLink`] and others.
    pub fn link(&mut self, name: &str) -> Result<LinkState, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut found = None;
        let asked = self.request(RouteNetlinkMessage::GetLink(message), 0, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(link_state(&link));
            }
        });
        match asked {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::NODEV) => {
                Err(explain(format!("look up the link {name}"), error))
            }
            _ => found.ok_or_else(|| NetlinkError::NoSuchLink { name: name.to_owned() }),
        }
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// See [`NetlinkError`].
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flags(index, LinkFlags::Up, "up")
    }

    /// Sets a link down: nothing gets through it, and its addresses stay.
    ///
    /// # Errors
    ///
    /// See [`NetlinkError`].
    pub fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flags(index, LinkFlags::empty(), "down")
    }

    fn set_flags(&mut self, index: u32, up: LinkFlags, word: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0, || format!("set link {index} {word}"))
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    ///
    /// See [`NetlinkError`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set the MTU of link {index} to {mtu}")
        })
    }

    /// Gives a link an IPv4 address, and the route to the prefix it lies in.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Exists`] if it has this address, and others.
    pub fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix_len;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        if prefix_len < 31 {
            let host_bits = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("add the address {address}/{prefix_len} to link {index}")
        })
    }

    /// The IPv4 addresses of a link, each with the length of its prefix.
    ///
    /// # Errors
    ///
    /// See [`NetlinkError`].
    pub fn ipv4_addresses(&mut self, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
        let mut addresses = Vec::new();
        self.each_ipv4_address(|link, address, prefix_len| {
            if link == index {
                addresses.push((address, prefix_len));
            }
        })?;
        Ok(addresses)
    }

    /// Whether any link has this address.
    ///
    /// # Errors
    ///
    /// See [`NetlinkError`].
    pub fn has_ipv4_address(&mut self, address: Ipv4Addr) -> Result<bool, NetlinkError> {
        let mut found = false;
        self.each_ipv4_address(|_, present, _| found |= present == address)?;
        Ok(found)
    }

    /// Calls `each` with a link's index, an address of it, and the length of its prefix.
    fn each_ipv4_address(
        &mut self,
        mut each: impl FnMut(u32, Ipv4Addr, u8),
    ) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP, |answer| {
            let RouteNetlinkMessage::NewAddress(AddressMessage { header, attributes, .. }) = answer
            else {
                return;
            };
            for attribute in attributes {
                if let AddressAttribute::Local(IpAddr::V4(local)) = attribute {
                    each(header.index, local, header.prefix_len);
                }
            }
        })
        .map_err(|error| explain("list the addresses of this machine".into(), error))
    }

    /// Makes a veth pair, one end here and one in the network namespace `peer_namespace`.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Exists`] if either name is taken, and others.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer_name: &str,
        peer_namespace: &impl AsFd,
    ) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(peer_name.to_owned()),
            LinkAttribute::NetNsFd(peer_namespace.as_fd().as_raw_fd()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("make the veth pair {name} and {peer_name}")
        })
    }

    /// Deletes a link; of a veth pair, both ends.
    ///
    /// # Errors
    ///
    /// See [`NetlinkError`].
    pub fn delete(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0, || format!("delete link {index}"))
    }

    fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        self.request(message, flags, |_| {}).map_err(|error| explain(action(), error))
    }

    /// Sends a request and gives the answers to `each`, up to the acknowledgement.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);
        self.socket.send(&request, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &*datagram;
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                // Messages are padded to four bytes.
                let len = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(len..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => each(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

fn link_state(link: &LinkMessage) -> LinkState {
    let flags = link.header.flags;
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let carrier = link.attributes.contains(&LinkAttribute::Carrier(1));
    LinkState {
        index: link.header.index,
        mtu: mtu.unwrap_or(0),
        up: flags.contains(LinkFlags::Up),
        carrier,
    }
}

fn explain(action: String, source: io::Error) -> NetlinkError {
    match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => NetlinkError::Forbidden { action },
        Some(Errno::EXIST) => NetlinkError::Exists { action },
        _ => NetlinkError::Refused { action, source },
    }
}
