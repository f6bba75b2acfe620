use std::{io, os::fd::BorrowedFd, time::Duration};

use dmaengine::PacketBuf;

use crate::{
    RxInfo, Statistics, TxInfo,
    offload::{ETHERNET_HEADER_LEN, VLAN_TAG_LEN},
};

/// The properties of a link, fixed when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The name, for people.
    pub name: String,
    /// An Ethernet address that the stack at this end can use: unicast, and not the other end's.
    pub mac: [u8; 6],
    /// The most bytes behind the Ethernet header that go out in one frame.
    pub mtu: usize,
    /// Whether frames with a partial checksum are taken, and delivered.
    pub checksum_offload: bool,
    /// The longest super-frame that is taken and delivered, in bytes from the Ethernet header on;
    /// `None` if no frame is longer than the MTU allows.
    pub tso_max: Option<usize>,
    /// The packet memory that received frames of the greatest length can hold before none is left
    /// for another, in bytes of [`PacketBuf::truesize`]. Let unread data hold less than that, so
    /// that some is left for what is under way.
    pub receive_memory: usize,
}

impl LinkInfo {
    /// The longest frame that is not to be cut, in bytes.
    pub(crate) const fn max_plain_frame(&self) -> usize {
        ETHERNET_HEADER_LEN + VLAN_TAG_LEN + self.mtu
    }

    /// The longest frame of any kind, in bytes.
    pub(crate) fn frame_max(&self) -> usize {
        self.tso_max.unwrap_or(0).max(self.max_plain_frame())
    }
}

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The device was deleted. Nothing will come any more.
    #[error("the link was deleted: open it again")]
    Gone,
    /// The operating system refused for another reason.
    #[error("receiving from the link failed: {0}")]
    Os(#[source] io::Error),
}

/// Why a frame was not transmitted. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum TransmitError {
    /// The queue is full. Drop the frame, or offer it again after some time.
    #[error("the link's queue is full: drop the frame, or try again later")]
    Full,
    /// There is no Ethernet header.
    #[error("{len} bytes are shorter than an Ethernet header")]
    TooShort {
        /// The frame's length in bytes.
        len: usize,
    },
    /// The link does not carry frames of this length.
    #[error("the frame has {len} bytes and the link carries {max}")]
    TooLong {
        /// The frame's length in bytes.
        len: usize,
        /// The greatest length that this link takes for such a frame, in bytes.
        max: usize,
    },
    /// The frame asks for an offload that the link lacks (see [`LinkInfo`]), or for TCP
    /// segmentation of something that is neither IPv4 nor IPv6.
    #[error("the link lacks an offload that the frame needs: see its LinkInfo")]
    Unsupported,
    /// The offsets of a [`TxInfo`] lie outside the frame, or contradict each other.
    #[error("the offload's offsets do not fit the frame")]
    BadOffload,
    /// The link is not up at the other end.
    #[error("the link is down: set it up (ip link set NAME up)")]
    Down,
    /// The device was deleted.
    #[error("the link was deleted: open it again")]
    Gone,
    /// The operating system refused for another reason.
    #[error("transmitting to the link failed: {0}")]
    Os(#[source] io::Error),
}

/// One end of an Ethernet link. One thread uses it at a time; no method waits.
///
/// `now` is the time since an epoch of the caller's choosing, the same for all calls, and never
/// goes back. Links that live in real time ignore it.
pub trait Link: Send {
    /// The fixed properties.
    fn info(&self) -> &LinkInfo;

    /// Counters since the link was opened.
    fn statistics(&self) -> &Statistics;

    /// Gives up to `max` frames that have arrived to `each`, in order, and returns how many there
    /// were. Frames that are malformed are dropped and counted, and use up `max` as well.
    ///
    /// Call it again when [`event`](Self::event) is readable or at
    /// [`poll_timeout`](Self::poll_timeout).
    ///
    /// # Errors
    ///
    /// See [`ReceiveError`]. Frames that arrived before the error were delivered by this call or an
    /// earlier one.
    fn receive(
        &mut self,
        now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError>;

    /// Transmits one frame, from the Ethernet header on.
    ///
    /// # Errors
    ///
    /// See [`TransmitError`]; nothing was transmitted.
    fn transmit(&mut self, now: Duration, frame: &[u8], info: TxInfo) -> Result<(), TransmitError>;

    /// What is readable while frames wait; `None` if there is no such thing.
    fn event(&self) -> Option<BorrowedFd<'_>>;

    /// When to call [`receive`](Self::receive) though [`event`](Self::event) is silent, on the
    /// scale of `now`; `None` if there is no need.
    fn poll_timeout(&self) -> Option<Duration>;
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn info(&self) -> &LinkInfo {
        (**self).info()
    }

    fn statistics(&self) -> &Statistics {
        (**self).statistics()
    }

    fn receive(
        &mut self,
        now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError> {
        (**self).receive(now, max, each)
    }

    fn transmit(&mut self, now: Duration, frame: &[u8], info: TxInfo) -> Result<(), TransmitError> {
        (**self).transmit(now, frame, info)
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        (**self).event()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        (**self).poll_timeout()
    }
}
