//! Chains of descriptors: where the device begins, and how it learns that there are more.
//!
//! From version 2.0 on the descriptors form a ring for ever, and DMACOUNT says how many of them may be
//! processed. Version 1 follows the chain to its end, a descriptor without a next one. More are linked
//! behind that, and APPEND makes the device look at it again. So the last descriptor that has completed
//! stays untouched until there is a later one: the ring's slot that is always free is the one before
//! the oldest.

use std::time::Duration;

use super::{IoatChannel, Service};
use crate::{
    Version,
    descriptor::{Control, Operation},
    error::{ChanErr, StartError},
    incident::IncidentKind,
    lines::{Ordering, fence},
    registers::{ChanCmd, ChanCtrl, ChanState, ChanStatus},
};

/// How the device learns of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doorbell {
    /// By DMACOUNT.
    Count,
    /// By the address of the next one in the last one, and START or APPEND.
    Append {
        /// START was given.
        started: bool,
    },
}

impl Doorbell {
    pub(super) fn of(version: Version) -> Self {
        if version < Version::V2_0 { Self::Append { started: false } } else { Self::Count }
    }
}

impl IoatChannel {
    /// Begins a chain after a reset, with an empty descriptor that proves that descriptors are read
    /// and the completion word is written. The ring must be empty.
    pub(super) fn start(&mut self, timeout: Duration) -> Result<(), StartError> {
        debug_assert!(self.ring.is_empty());
        self.begin();
        let first = self.ring.index(self.ring.head());
        let address = self.descriptors.address(first.get());
        self.descriptors.write(first, Operation::Null, Control::COMPL_WRITE);
        self.ring.push_null();
        self.ring_doorbell();
        let completed = |word: u64| ChanStatus(word).descriptor() == address;
        let done = self.registers.wait(timeout, |registers| {
            completed(self.completion.read()) || registers.status().state() == ChanState::Halted
        });
        let word = self.completion.read();
        let status = self.registers.status();
        // The empty descriptor belongs to nobody, whatever became of it.
        self.ring.end_all(dmaengine::Status::Aborted, &mut |_| {});
        self.seen = word;
        if completed(word) && done {
            self.serve(Service::Up);
            return Ok(());
        }
        let error = match status {
            ChanStatus::GONE => StartError::Gone,
            _ if status.state() == ChanState::Halted => StartError::Halted(self.registers.errors()),
            _ if completed(status.0) => StartError::NoCompletionWrite,
            _ => StartError::Silent,
        };
        self.out_of_service(IncidentKind::NotStarting(error));
        Err(error)
    }

    /// Begins a chain after a reset, with what was issued and has not ended. What was submitted and
    /// not issued waits for its doorbell.
    pub(super) fn resume(&mut self) {
        self.begin();
        for position in self.ring.issued() {
            let index = self.ring.index(position);
            // The device may have written a result over it, whose completion it did not live to tell.
            if let Some(size) = self.sizes.get(index.get())
                && self.ring.is_check(position)
            {
                self.descriptors.set_size(index, *size);
            }
        }
        if self.ring.in_flight() > 0 {
            self.announce(self.ring.issued().start);
        }
        self.serve(Service::Up);
    }

    /// Tells a channel that was reset, which has forgotten all of it, where everything is.
    fn begin(&mut self) {
        self.registers.set_control(ChanCtrl::RUN);
        if self.shared.hardware.writes_results() {
            self.registers.mask_errors(ChanErr::XOR_P_OR_CRC | ChanErr::XOR_Q);
        }
        self.completion.clear();
        self.seen = 0;
        self.registers.set_completion_address(self.completion.iova());
        self.ring.begin_chain();
        match &mut self.doorbell {
            Doorbell::Count => {
                let first = self.ring.index(self.ring.issued().start);
                self.registers.set_chain_address(self.descriptors.address(first.get()));
            }
            // With its START.
            Doorbell::Append { started } => *started = false,
        }
    }

    /// Issues what is in the ring.
    pub(super) fn ring_doorbell(&mut self) {
        let first = self.ring.issued().end;
        self.ring.issue();
        self.announce(first);
    }

    /// Tells the device of the descriptors from position `first` on, which were issued.
    fn announce(&mut self, first: u64) {
        if let Doorbell::Count = self.doorbell {
            // Release: the descriptors, and what the CPU wrote into the sources, come before the
            // doorbell. (On x86 stores stay in order anyway; elsewhere the `Bar` adds what its
            // mapping needs.)
            fence(Ordering::Release);
            self.registers.set_dma_count(self.ring.count());
        } else {
            self.append(first);
        }
    }

    /// As [`announce`](Self::announce), by the address of the next descriptor.
    #[cold]
    fn append(&mut self, first: u64) {
        let Doorbell::Append { started } = self.doorbell else { return };
        // The end of the chain may have been anywhere in the last round.
        let end = self.ring.issued().end;
        for position in first..end {
            let next = position + 1;
            let next = (next != end).then(|| self.ring.index(next));
            self.descriptors.link(self.ring.index(position), next);
        }
        let first_index = self.ring.index(first);
        // Release: the descriptors, and what the CPU wrote into the sources, come before the device
        // can find them.
        fence(Ordering::Release);
        if started {
            let last = self.ring.index(first.wrapping_sub(1));
            self.descriptors.link(last, Some(first_index));
            // Release: the link comes before the command to look at it.
            fence(Ordering::Release);
            self.registers.command(ChanCmd::APPEND);
        } else {
            self.registers.set_chain_address(self.descriptors.address(first_index.get()));
            self.registers.command(ChanCmd::START);
            self.doorbell = Doorbell::Append { started: true };
        }
    }

    /// Rings the doorbell once more for what was issued.
    pub(super) fn ring_again(&self) {
        match self.doorbell {
            Doorbell::Count => self.registers.set_dma_count(self.ring.count()),
            Doorbell::Append { started: true } => self.registers.command(ChanCmd::APPEND),
            Doorbell::Append { started: false } => {}
        }
    }
}
