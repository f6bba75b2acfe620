//! From an operation to descriptors.

use std::hint::assert_unchecked;

use dmaengine::{
    Cookie, Flags, IovaMap, IovaRegion, Operation, Segment, SegmentMut, SubmitError, pieces,
};

use super::{IoatChannel, Service};
use crate::{
    descriptor::{Control, Operation as Descriptor},
    ring::{Index, Slot},
};

impl IoatChannel {
    /// The usual case, in few instructions: a copy that fits one descriptor, from and to the arenas
    /// of the last one, while there is room. `None` for any other, and for what is to be refused.
    /// A fence is not looked at.
    #[inline]
    pub(super) fn submit_copy(
        &mut self,
        source: *const u8,
        target: *mut u8,
        len: usize,
        flags: Flags,
    ) -> Option<Cookie> {
        let xfercap = self.info.xfercap.get();
        // SAFETY: the register has 5 bits for its logarithm (`IoatDevice::probe`).
        unsafe { assert_unchecked(xfercap <= 1 << 31) };
        // Without a byte there is no last one.
        let last = len.wrapping_sub(1);
        if last >= xfercap {
            return None;
        }
        let source = self.source_region.translate(source, len as u32)?;
        let target = self.target_region.translate(target, len as u32)?;
        // They overlap if one begins less than `len` bytes before or behind the other: here as well
        // as there, because no two arenas share an IOVA.
        let behind = target.wrapping_add(last as u64).wrapping_sub(source);
        if behind <= 2 * last as u64 || self.ring.space() == 0 {
            return None;
        }
        let index = self.ring.index(self.ring.head());
        let cookie = self.ring.push_last(len);
        let copy = Descriptor::Copy { source, target, len: len as u32 };
        self.descriptors.write(index, copy, self.end(flags));
        Some(cookie)
    }

    /// What the last descriptor of an operation asks for.
    fn end(&self, flags: Flags) -> Control {
        if flags.contains(Flags::NO_STATUS) { Control::empty() } else { self.end_control }
    }

    /// Any operation. Its descriptors are written where the ring is free, and become part of it only
    /// when all of them stand.
    #[cold]
    #[inline(never)]
    pub(super) fn submit_any(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        if let Operation::Memcpy { source, target, len } = *operation
            && !flags.contains(Flags::FENCE)
            && let Some(cookie) = self.submit_copy(source, target, len, flags)
        {
            return Ok(cookie);
        }
        let count = self.info.check(operation, flags)?;
        if self.service != Service::Up {
            return Err(SubmitError::ChannelDown);
        }
        match *operation {
            Operation::Memcpy { source, target, len } => {
                let place = self.place(count, flags)?;
                let source = Segment { address: source, len };
                let target = SegmentMut { address: target, len };
                self.write_copies(operation, &[source], &[target], place)?;
                Ok(self.enter_all(place, len))
            }
            Operation::MemcpySg { sources, targets } => {
                let place = self.place(count, flags)?;
                self.write_copies(operation, sources, targets, place)?;
                Ok(self.enter_all(place, operation.len()))
            }
            Operation::Memset { pattern, target, len } => {
                let place = self.place(count, flags)?;
                self.write_fills(operation, (pattern, target, len), place)?;
                Ok(self.enter_all(place, len))
            }
            Operation::Xor { .. }
            | Operation::XorVal { .. }
            | Operation::Pq { .. }
            | Operation::PqVal { .. } => self.submit_raid(operation, count, flags),
        }
    }

    /// Where an operation of `count` descriptors goes.
    pub(super) fn place(&self, count: usize, flags: Flags) -> Result<Place, SubmitError> {
        let max = self.info.ring_size;
        if count > max {
            return Err(SubmitError::TooManyDescriptors { descriptors: count, max });
        }
        if count > self.ring.space() {
            return Err(SubmitError::RingFull);
        }
        // Behind an empty ring there is nothing to wait for. What was issued can no longer be made
        // a fence; an empty descriptor then is one, in the slot that is kept for it.
        let fence = if !flags.contains(Flags::FENCE) || self.ring.is_empty() {
            Fence::None
        } else {
            self.ring.last_pending().map_or(Fence::Own, Fence::Before)
        };
        let first = self.ring.head() + u64::from(fence == Fence::Own);
        Ok(Place { fence, first, last: first + count as u64 - 1, end: self.end(flags) })
    }

    /// Makes the fence of an operation, all of whose descriptors stand.
    pub(super) fn enter(&mut self, place: Place) {
        match place.fence {
            Fence::None => {}
            Fence::Before(index) => self.descriptors.add(index, Control::FENCE),
            Fence::Own => {
                let index = self.ring.index(self.ring.head());
                self.descriptors.write(index, Descriptor::Null, Control::FENCE);
                self.ring.push_fence();
            }
        }
    }

    /// Makes an operation of `len` bytes, each of whose descriptors is a whole one, part of the ring.
    fn enter_all(&mut self, place: Place, len: usize) -> Cookie {
        self.enter(place);
        for _ in place.first..place.last {
            self.ring.push_part(Slot::empty());
        }
        self.ring.push_last(len)
    }

    fn write_copies(
        &mut self,
        operation: &Operation<'_>,
        sources: &[Segment],
        targets: &[SegmentMut],
        place: Place,
    ) -> Result<(), SubmitError> {
        let pieces = pieces(sources, targets, self.info.xfercap.get());
        for (position, (source, target, len)) in (place.first..).zip(pieces) {
            // XFERCAP is at most 2^31.
            let len = len as u32;
            let source = translate(&self.shared.iova, &mut self.source_region, source, len)
                .ok_or_else(|| operation.unreachable(source))?;
            let target = translate(&self.shared.iova, &mut self.target_region, target, len)
                .ok_or_else(|| operation.unreachable(target))?;
            let copy = Descriptor::Copy { source, target, len };
            self.descriptors.write(self.ring.index(position), copy, place.control(position));
        }
        Ok(())
    }

    fn write_fills(
        &mut self,
        operation: &Operation<'_>,
        (pattern, target, len): (u64, *mut u8, usize),
        place: Place,
    ) -> Result<(), SubmitError> {
        let xfercap = self.info.xfercap.get();
        // XFERCAP is a multiple of 8, so every piece begins with the pattern's first byte.
        for (position, done) in (place.first..).zip((0..len).step_by(xfercap)) {
            let len = xfercap.min(len - done) as u32;
            let target = target.wrapping_add(done);
            let target = translate(&self.shared.iova, &mut self.target_region, target, len)
                .ok_or_else(|| operation.unreachable(target))?;
            let fill = Descriptor::Fill { pattern, target, len };
            self.descriptors.write(self.ring.index(position), fill, place.control(position));
        }
        Ok(())
    }
}

/// Where an operation's descriptors go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    fence: Fence,
    pub(super) first: u64,
    last: u64,
    /// What the last asks for.
    pub(super) end: Control,
}

/// What makes an operation wait for those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    /// It need not.
    None,
    /// A bit of the descriptor before.
    Before(Index),
    /// An empty descriptor of its own.
    Own,
}

impl Place {
    fn control(self, position: u64) -> Control {
        if position == self.last { self.end } else { Control::empty() }
    }
}

/// The IOVA of `len` bytes from `address` on, by the region of the last ones if that has them.
fn translate(map: &IovaMap, region: &mut IovaRegion, address: *const u8, len: u32) -> Option<u64> {
    if let Some(iova) = region.translate(address, len) {
        return Some(iova);
    }
    *region = map.region(address, len as usize)?;
    region.translate(address, len)
}
