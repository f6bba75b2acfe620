//! The way of a descriptor through a channel: fetched, moved by the shell, retired.

use std::time::Duration;

use super::{Channel, Context, InFlight, Stall, State, Stop};
use crate::{
    descriptor::{
        Control, DESCRIPTOR_SIZE, DESCRIPTOR_WORDS, Descriptor, Limits, NEXT_WORD, Operation,
        Performed,
    },
    faults::Fault,
    memory::{Memory, MemoryError},
    parity::Mismatch,
    registers::{ChanCtrl, ChanErr},
};

/// What a failed check leaves in CHANERR. A channel that halts for nothing else takes a new chain
/// without a reset.
const CHECKS: ChanErr = ChanErr::XOR_P_OR_CRC.union(ChanErr::XOR_Q);

/// First dword of a descriptor that a check's result was written into: P is wrong.
const WRITTEN_BACK_P: u32 = 1 << 25;
/// Q is wrong.
const WRITTEN_BACK_Q: u32 = 1 << 26;
/// There is a result.
const WRITTEN_BACK: u32 = 1 << 31;

impl From<Mismatch> for ChanErr {
    fn from(mismatch: Mismatch) -> Self {
        let mut errors = Self::empty();
        errors.set(Self::XOR_P_OR_CRC, mismatch.contains(Mismatch::P));
        errors.set(Self::XOR_Q, mismatch.contains(Mismatch::Q));
        errors
    }
}

impl Channel {
    /// Whether there may be a descriptor to fetch.
    pub(crate) fn is_ready(&self) -> bool {
        self.state == State::Active
            && self.in_flight.is_none()
            && self.stall.is_none()
            && self.stop.is_none()
    }

    /// Version 1.2: goes on after APPEND. Whether there is a descriptor to fetch now.
    pub(crate) fn follow(&mut self, memory: &mut impl Memory, context: &Context) -> bool {
        if !context.chains || self.next != 0 || self.at_chain_start {
            return true;
        }
        self.appended = false;
        let mut next = [0];
        let word = self.last_completed + NEXT_WORD as u64 * 8;
        let read = memory.read(word, &mut next);
        let bits = match read {
            Err(MemoryError::Address) => ChanErr::NEXT_ADDRESS,
            Err(MemoryError::Data) => ChanErr::DESCRIPTOR,
            Ok(()) if !next[0].is_multiple_of(DESCRIPTOR_SIZE) => ChanErr::DESCRIPTOR,
            Ok(()) => {
                self.next = next[0];
                self.run(context);
                return self.state == State::Active;
            }
        };
        self.halt(bits, memory, context);
        false
    }

    /// Takes the next descriptor in hand. `None` if there is nothing to move: the descriptor was
    /// refused, or the channel stalls.
    pub(crate) fn fetch(
        &mut self,
        memory: &mut impl Memory,
        fault: Option<Fault>,
        context: &Context,
    ) -> Option<Operation> {
        self.counts.descriptors += 1;
        self.current = self.next;
        match fault {
            Some(Fault::Error(bits)) => {
                self.halt(bits, memory, context);
                return None;
            }
            Some(Fault::Halt) => {
                self.halt(ChanErr::empty(), memory, context);
                return None;
            }
            Some(Fault::Hang) => {
                self.stall = Some(Stall::UntilReset);
                return None;
            }
            Some(Fault::Dead) => {
                self.stall = Some(Stall::ForEver);
                return None;
            }
            _ => {}
        }
        let descriptor = match self.read_descriptor(memory, context) {
            Ok(descriptor) => descriptor,
            Err(bits) => {
                // Nothing is known of what follows, so masking does not help here.
                self.halt(bits, memory, context);
                return None;
            }
        };
        let Descriptor { operation, control, next, slots, write_back } = descriptor;
        self.in_flight =
            Some(InFlight { control, next, slots, write_back, fault, ends: None, performed: None });
        Some(operation)
    }

    fn read_descriptor(
        &self,
        memory: &mut impl Memory,
        context: &Context,
    ) -> Result<Descriptor, ChanErr> {
        let at_start = self.at_chain_start;
        let bad_address = if at_start { ChanErr::CHAIN_ADDRESS } else { ChanErr::NEXT_ADDRESS };
        if !self.next.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(bad_address);
        }
        let mut words = [0; DESCRIPTOR_WORDS];
        memory.read(self.next, &mut words).map_err(|error| match error {
            MemoryError::Address => bad_address,
            MemoryError::Data => ChanErr::DESCRIPTOR,
        })?;
        let allowed = if context.chains { u16::MAX } else { self.pending() };
        let limits = Limits { xfercap: context.xfercap, capability: context.capability, allowed };
        Descriptor::decode(words, limits, memory)
    }

    /// Makes the descriptor in hand last until then at least.
    pub(crate) const fn hold(&mut self, ends: Duration) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.ends = Some(ends);
        }
    }

    /// The shell has done the descriptor in hand. Ignored if there is none, or if it was said before.
    pub(crate) fn retire(
        &mut self,
        performed: Performed,
        memory: &mut impl Memory,
        context: &Context,
    ) {
        let resetting = self.is_resetting();
        let Some(in_flight) = &mut self.in_flight else { return };
        if in_flight.performed.is_some() {
            return;
        }
        if in_flight.ends.is_some_and(|ends| context.now < ends) && !resetting {
            in_flight.performed = Some(performed);
            return;
        }
        let Some(in_flight) = self.in_flight.take() else { return };
        match self.stop {
            Some(reset @ (Stop::Reset | Stop::PowerUp)) => self.stop_with(reset, context),
            _ => self.end(&in_flight, performed, memory, context),
        }
    }

    /// Ends a descriptor that was in hand.
    fn end(
        &mut self,
        in_flight: &InFlight,
        performed: Performed,
        memory: &mut impl Memory,
        context: &Context,
    ) {
        let InFlight { control, next, slots, write_back, fault, .. } = *in_flight;
        let errors = match performed {
            Ok(mismatch) => {
                if let Some(control) = write_back
                    && !mismatch.is_empty()
                    && context.bus_master
                {
                    // The descriptor was read from there; if it cannot be written, that is all that
                    // is lost.
                    let _ = memory.write(self.current, write_back_word(mismatch, control));
                }
                mismatch.into()
            }
            Err(error) => error.into(),
        };
        if !self.error_mask.contains(errors) {
            self.halt(errors, memory, context);
            return;
        }
        self.note(errors);
        self.last_completed = self.current;
        self.next = next;
        self.at_chain_start = false;
        self.processed = self.processed.wrapping_add(slots);
        self.run(context);
        if let Some(stop) = self.stop {
            self.stop_with(stop, context);
        }
        if control.contains(Control::COMPL_WRITE) && fault != Some(Fault::LostCompletion) {
            let late = match fault {
                Some(Fault::LateCompletion(late)) => Some(late),
                _ => None,
            };
            self.write_completion_word(late, memory, context);
        }
        if control.contains(Control::INT_EN) && fault != Some(Fault::LostInterrupt) {
            self.raise_interrupt(context);
        }
    }

    /// Stops at the current descriptor, which is not completed.
    fn halt(&mut self, bits: ChanErr, memory: &mut impl Memory, context: &Context) {
        self.note(bits);
        self.fail();
        // What a check finds wrong is no reason to distrust the channel.
        self.failed = bits.is_empty() || !CHECKS.contains(bits);
        if self.control.contains(ChanCtrl::ERR_COMPLETION_EN) {
            self.write_completion_word(None, memory, context);
        }
        if self.control.contains(ChanCtrl::ERR_INT_EN) {
            self.raise_interrupt(context);
        }
    }

    fn write_completion_word(
        &mut self,
        late: Option<Duration>,
        memory: &mut impl Memory,
        context: &Context,
    ) {
        let word = self.status();
        if let Some((_, waiting)) = &mut self.late_word {
            // It does not pass one that is late already.
            *waiting = word;
        } else if let Some(late) = late {
            self.late_word = Some((context.now.saturating_add(late), word));
        } else {
            self.write_word(word, memory, context);
        }
    }

    fn write_word(&mut self, word: u64, memory: &mut impl Memory, context: &Context) {
        if !context.bus_master {
            // The device was taken the right since the descriptor was fetched: it does not get out.
            return;
        }
        let address = self.completion_address;
        if address.is_multiple_of(8) && memory.write(address, word).is_ok() {
            return;
        }
        self.note(ChanErr::COMPLETION_ADDRESS);
        if !self.error_mask.contains(ChanErr::COMPLETION_ADDRESS) {
            // A word that was late may find the next descriptor in hand already.
            self.stop_with(Stop::Abort, context);
            if self.control.contains(ChanCtrl::ERR_INT_EN) {
                self.raise_interrupt(context);
            }
        }
    }

    /// When something is due, besides the end of a RESET.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.is_resetting() {
            return None;
        }
        let held = self.in_flight.filter(|in_flight| in_flight.performed.is_some());
        let ends = held.and_then(|in_flight| in_flight.ends);
        let word = self.late_word.map(|(due, _)| due);
        [ends, word, self.late_interrupt].into_iter().flatten().min()
    }

    /// Does what is due at `context.now`, the time that [`deadline`](Self::deadline) named.
    pub(crate) fn advance(&mut self, memory: &mut impl Memory, context: &Context) {
        let due = |at: Duration| at <= context.now;
        if let Some((_, word)) = self.late_word.take_if(|(at, _)| due(*at)) {
            self.write_word(word, memory, context);
        }
        if self.late_interrupt.take_if(|at| due(*at)).is_some() {
            self.events.interrupt = true;
        }
        if let Some(in_flight) = self.in_flight
            && let Some(performed) = in_flight.performed
            && in_flight.ends.is_some_and(due)
        {
            self.in_flight = None;
            self.end(&in_flight, performed, memory, context);
        }
    }
}

/// The first two dwords of a descriptor whose check failed.
fn write_back_word(mismatch: Mismatch, control: u32) -> u64 {
    let mut result = WRITTEN_BACK;
    if mismatch.contains(Mismatch::P) {
        result |= WRITTEN_BACK_P;
    }
    if mismatch.contains(Mismatch::Q) {
        result |= WRITTEN_BACK_Q;
    }
    u64::from(result) | u64::from(control) << 32
}
