//! Posted receives, each with its buffer, in one line for each socket.

use std::time::Duration;

use dmaengine::Target;
use netstack::{Instant, SocketId};
use rustc_hash::FxHashMap;

use crate::{Copybreak, Decision, Request, Waiting, WakeReason, reading::Moment, share::Shared};

/// Names a posted receive. Ids of receives that were withdrawn are never valid again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceiveId {
    index: u32,
    generation: u32,
}

/// How far a posted receive has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken off the receive queue into the buffer, from its start on. All of them are there
    /// when nothing is in flight.
    pub taken: usize,
    /// Copies into the buffer that an engine still owns.
    pub in_flight: usize,
    /// Bytes of the buffer that are still free.
    pub room: usize,
    /// Why it takes no more, if it does not.
    pub ended: Option<WakeReason>,
}

/// Copies into the buffer are in flight: the receive cannot be withdrawn, only waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an engine still copies into this buffer: reap its completions first")]
pub struct Busy;

/// Where received bytes go.
#[derive(Debug)]
pub enum Destination {
    /// Into this buffer.
    Buffer(Target),
    /// Nowhere: so many are consumed at most, and not copied ([`RecvFlags::TRUNC`]).
    ///
    /// [`RecvFlags::TRUNC`]: crate::RecvFlags::TRUNC
    Nowhere(usize),
}

impl Destination {
    /// How many bytes there is room for.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Buffer(target) => target.len(),
            Self::Nowhere(len) => *len,
        }
    }

    /// Where the next byte goes; 0 if nowhere.
    pub(crate) fn address(&mut self) -> usize {
        match self {
            Self::Buffer(target) => target.as_mut().as_ptr().addr(),
            Self::Nowhere(_) => 0,
        }
    }

    /// Whether there is no room.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the next `len` bytes; `None` if they go nowhere.
    pub(crate) fn split_to(&mut self, len: usize) -> Option<Target> {
        match self {
            Self::Buffer(target) => Some(target.split_to(len)),
            Self::Nowhere(left) => {
                *left -= len;
                None
            }
        }
    }
}

impl From<Target> for Destination {
    fn from(target: Target) -> Self {
        Self::Buffer(target)
    }
}

/// The state of one receive call. It belongs to the call, not to the socket: two threads in receive
/// on one socket have one each (`NET_DMA` kept it in the socket, hence CVE-2019-3837).
#[derive(Debug)]
pub(crate) struct Receive {
    pub(crate) socket: SocketId,
    /// What is still free.
    pub(crate) rest: Destination,
    /// The length that the call gave, which copybreak goes by.
    pub(crate) len: usize,
    /// With so many bytes it may return.
    pub(crate) goal: usize,
    pub(crate) copybreak: Option<Copybreak>,
    pub(crate) waiting: Waiting,
    pub(crate) taken: usize,
    pub(crate) in_flight: usize,
    /// It has waited for what is taken from now on.
    pub(crate) is_early: bool,
    /// The last byte taken came with PSH.
    pub(crate) is_pushed: bool,
    pub(crate) ended: Option<WakeReason>,
    /// What the engine and the CPU did side by side at last, until it is known who was faster.
    pub(crate) shared: Option<Shared>,
    /// What the policy has decided, once it was asked.
    pub(crate) decision: Option<Decision>,
    /// What it has cost its thread so far, if that is measured.
    pub(crate) cost: Duration,
    /// Copies that the engine was given.
    pub(crate) given: u32,
    /// Their bytes.
    pub(crate) given_bytes: usize,
    /// When lines of it are still to be looked at.
    pub(crate) to_read: Option<Moment>,
    /// When it ended, if copies were in flight then.
    pub(crate) copying_since: Option<Instant>,
    /// Nobody will withdraw it: it goes with its last copy.
    pub(crate) is_abandoned: bool,
    /// Who is next in the line.
    next: Option<ReceiveId>,
}

impl Receive {
    /// Whether what it costs is measured.
    pub(crate) fn is_measured(&self) -> bool {
        self.decision.is_some_and(|decision| decision.is_measured)
    }

    pub(crate) fn new(socket: SocketId, rest: Destination, request: Request) -> Self {
        Self {
            socket,
            len: rest.len(),
            goal: request.goal(rest.len()),
            rest,
            copybreak: request.copybreak,
            waiting: request.waiting,
            taken: 0,
            in_flight: 0,
            is_early: false,
            is_pushed: false,
            shared: None,
            decision: None,
            cost: Duration::ZERO,
            given: 0,
            given_bytes: 0,
            to_read: None,
            ended: None,
            copying_since: None,
            is_abandoned: false,
            next: None,
        }
    }
}

/// The posted receives, by id; and of those that have not ended, each socket's in the order in which
/// they were posted.
#[derive(Debug, Default)]
pub(crate) struct Receives {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Ids of sockets are our own, so that nobody can choose them to collide.
    lines: FxHashMap<SocketId, Line>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    receive: Option<Receive>,
}

#[derive(Debug)]
struct Line {
    first: ReceiveId,
    last: ReceiveId,
}

impl Receives {
    /// Adds a receive at the end of its socket's line.
    pub(crate) fn insert(&mut self, mut receive: Receive) -> ReceiveId {
        let socket = receive.socket;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, receive: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 receive calls wait")
        });
        let id = ReceiveId { index, generation: self.slots[index as usize].generation };
        let last = self.lines.get(&socket).map(|line| line.last);
        receive.is_early = last.is_some();
        self.slots[index as usize].receive = Some(receive);
        if let Some(last) = last.and_then(|last| self.get_mut(last)) {
            last.next = Some(id);
        }
        self.lines.entry(socket).or_insert(Line { first: id, last: id }).last = id;
        id
    }

    /// The receive of `socket` whose turn it is.
    pub(crate) fn first(&self, socket: SocketId) -> Option<ReceiveId> {
        self.lines.get(&socket).map(|line| line.first)
    }

    pub(crate) fn get(&self, id: ReceiveId) -> Option<&Receive> {
        let slot = self.slots.get(id.index as usize)?;
        slot.receive.as_ref().filter(|_| slot.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: ReceiveId) -> Option<&mut Receive> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.receive.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// Ends a receive: it leaves the line. It stays until it is removed. Nothing happens to one that
    /// has ended. Returns whether it has now.
    pub(crate) fn end(&mut self, id: ReceiveId, reason: WakeReason) -> bool {
        let Some(receive) = self.get_mut(id).filter(|receive| receive.ended.is_none()) else {
            return false;
        };
        receive.ended = Some(reason);
        let (socket, next) = (receive.socket, receive.next.take());
        let before = self.before(socket, id);
        if let Some(before) = before.and_then(|before| self.get_mut(before)) {
            before.next = next;
        }
        let Some(line) = self.lines.get_mut(&socket) else { return true };
        match (before, next) {
            (None, None) => {
                self.lines.remove(&socket);
            }
            (None, Some(next)) => line.first = next,
            (Some(before), None) => line.last = before,
            (Some(_), Some(_)) => {}
        }
        true
    }

    /// Who stands before `id` in the line of `socket`.
    fn before(&self, socket: SocketId, id: ReceiveId) -> Option<ReceiveId> {
        let mut before = self.first(socket).filter(|first| *first != id);
        while let Some(next) = self.get(before?)?.next.filter(|next| *next != id) {
            before = Some(next);
        }
        before
    }

    /// Removes a receive that has ended.
    pub(crate) fn remove(&mut self, id: ReceiveId) -> Option<Receive> {
        let receive = self.get(id)?;
        debug_assert!(receive.ended.is_some(), "it still stands in the line");
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        slot.receive.take()
    }
}
