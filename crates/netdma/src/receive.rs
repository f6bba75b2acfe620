//! Receive calls that wait, each with its buffer.

use dmaengine::Target;
use netstack::SocketId;

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
}

/// Copies into the buffer are in flight: the receive cannot be withdrawn, only waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an engine still copies into this buffer: reap its completions first")]
pub struct Busy;

/// The state of one receive call. It belongs to the call, not to the socket: two threads in receive
/// on one socket have one each (`NET_DMA` kept it in the socket, hence CVE-2019-3837).
#[derive(Debug)]
pub(crate) struct Receive {
    pub(crate) socket: SocketId,
    /// The part of the buffer that is still free.
    pub(crate) target: Target,
    /// Whether copybreak lets this read use the engine.
    pub(crate) offloads: bool,
    pub(crate) taken: usize,
    pub(crate) in_flight: usize,
}

/// The posted receives, by id.
#[derive(Debug, Default)]
pub(crate) struct Receives {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    receive: Option<Receive>,
}

impl Receives {
    pub(crate) fn insert(&mut self, receive: Receive) -> ReceiveId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, receive: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 receive calls wait")
        });
        let slot = &mut self.slots[index as usize];
        slot.receive = Some(receive);
        ReceiveId { index, generation: slot.generation }
    }

    pub(crate) fn get(&self, id: ReceiveId) -> Option<&Receive> {
        let slot = self.slots.get(id.index as usize)?;
        slot.receive.as_ref().filter(|_| slot.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: ReceiveId) -> Option<&mut Receive> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.receive.as_mut().filter(|_| slot.generation == id.generation)
    }

    pub(crate) fn remove(&mut self, id: ReceiveId) -> Option<Receive> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        slot.receive.take()
    }
}
