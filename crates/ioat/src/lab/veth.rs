//! The baseline: the kernel receives from itself, over a veth pair.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::Arc,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use netdma::Counters;

use super::{Copied, NamespaceError, PeerNamespace, Receiver};
use crate::{
    measure::{Pieces, Reads},
    netlink::{Netlink, NetlinkError},
};

const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const PREFIX_LEN: u8 = 24;
const RECEIVER_LINK: &str = "veth0";
const SENDER_LINK: &str = "veth1";

/// How long the receiver waits for bytes before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// There is no second namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The links could not be made or set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The receiving socket cannot listen.
    #[error("cannot listen on the veth pair: {0}")]
    Listen(#[source] io::Error),
}

/// Two namespaces joined by a veth pair: the calling thread's, which receives, and a new one, which
/// sends. The kernel's TCP receives in this one.
#[derive(Debug)]
pub struct VethBaseline {
    peer: Arc<PeerNamespace>,
    listener: TcpListener,
    address: SocketAddrV4,
    _links: Links,
}

/// The veth pair, by the index of the end that receives. Dropping it removes both ends.
#[derive(Debug)]
struct Links(u32);

impl VethBaseline {
    /// Makes the second namespace and the links.
    ///
    /// # Errors
    ///
    /// See [`VethError`].
    pub fn new() -> Result<Self, VethError> {
        let peer = Arc::new(PeerNamespace::new()?);
        let mut netlink = Netlink::open()?;
        netlink.add_veth(RECEIVER_LINK, SENDER_LINK, &*peer)?;
        let link = netlink.link(RECEIVER_LINK)?.index;
        let links = Links(link);
        netlink.add_address(link, RECEIVER, PREFIX_LEN)?;
        netlink.set_up(link)?;
        peer.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(SENDER_LINK)?.index;
            netlink.add_address(link, SENDER, PREFIX_LEN)?;
            netlink.set_up(link)
        })??;
        let listener = TcpListener::bind((RECEIVER, 0)).map_err(VethError::Listen)?;
        let port = listener.local_addr().map_err(VethError::Listen)?.port();
        let address = SocketAddrV4::new(RECEIVER, port);
        Ok(Self { peer, listener, address, _links: links })
    }
}

impl Receiver for VethBaseline {
    fn address(&self) -> SocketAddrV4 {
        self.address
    }

    fn sender_namespace(&self) -> Option<Arc<PeerNamespace>> {
        Some(Arc::clone(&self.peer))
    }

    fn accept<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<Box<dyn Pieces + 'a>> {
        let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(Reads { stream, buffer }))
    }

    fn copied(&self) -> Option<Copied> {
        None
    }

    fn counters(&self) -> Option<Counters> {
        None
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // If it fails the links go with the process.
        let _ = Netlink::open().and_then(|mut netlink| netlink.delete(self.0));
    }
}
