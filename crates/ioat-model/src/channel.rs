//! One channel: its states, its registers, and the way of a descriptor through it.
//!
//! ```text
//!              CHAINADDR               DMACOUNT
//!   HALTED ---------------> ARMED ------------------> ACTIVE <------> DONE
//!     ^  ^                    ^                         |  DMACOUNT     |
//!     |  |                    | CHAINADDR               | SUSPEND       | SUSPEND
//!     |  +--- RESET from any state                      v               v
//!     |                       +--------------------- SUSPENDED <--------+
//!     +--- an unmasked error, or ABORT                  | RESUME
//!                                                       +------> ACTIVE or DONE
//! ```
//!
//! After an error or ABORT, CHAINADDR is taken only once the channel has been reset and CHANERR
//! cleared. A command that a state has no arrow for is ignored: SUSPEND on a channel that never ran leaves it
//! as it is, and a driver that waits for SUSPENDED then waits in vain.

use crate::{
    descriptor::{Control, DESCRIPTOR_SIZE, DESCRIPTOR_WORDS, Descriptor, Operation},
    faults::Fault,
    memory::{Memory, MoveError},
    registers::{ChanCmd, ChanCtrl, ChanErr, DmaCapability},
};

/// Bits 2:0 of CHANSTS and of the completion word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Working, or it has descriptors to work on.
    Active = 0,
    /// Everything that DMACOUNT allows is done (also called IDLE).
    Done = 1,
    /// Stopped by SUSPEND.
    Suspended = 2,
    /// Stopped by an error or ABORT, or not set up since power-up or RESET.
    Halted = 3,
    /// CHAINADDR was written, nothing has been counted yet.
    Armed = 4,
}

/// A command that waits for the descriptor in flight. A later one replaces an earlier, lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Suspend,
    Abort,
    Reset,
    /// Function level reset.
    PowerUp,
}

/// A descriptor between `fetch` and `retire`.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    control: Control,
    next: u64,
    write_completion: bool,
}

/// Why a channel makes no progress though it is ACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    UntilReset,
    ForEver,
}

#[derive(Debug)]
pub(crate) struct Channel {
    state: State,
    control: ChanCtrl,
    /// An interrupt was raised and not re-armed since.
    interrupt_spent: bool,
    chain_address: u64,
    completion_address: u64,
    /// CDAR.
    current: u64,
    errors: ChanErr,
    pub(crate) error_mask: ChanErr,
    pub(crate) dca_control: u32,
    dma_count: u16,
    /// Descriptors ended since the chain began, modulo 2^16.
    processed: u16,
    last_completed: u64,
    next: u64,
    /// `next` came from CHAINADDR, not from a descriptor.
    at_chain_start: bool,
    in_flight: Option<InFlight>,
    stop: Option<Stop>,
    /// Halted by an error or ABORT: only RESET leads on.
    failed: bool,
    stall: Option<Stall>,
    /// Descriptors looked at since power-up: the position that faults are ordered by.
    pub(crate) position: u64,
    events: Events,
}

/// What the rest of the device must learn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    /// An interrupt was raised.
    pub(crate) interrupt: bool,
    /// These errors were found.
    pub(crate) errors: ChanErr,
    /// RESET has ended.
    pub(crate) reset: bool,
}

impl Channel {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Halted,
            control: ChanCtrl::empty(),
            interrupt_spent: false,
            chain_address: 0,
            completion_address: 0,
            current: 0,
            errors: ChanErr::empty(),
            error_mask: ChanErr::empty(),
            dca_control: 0,
            dma_count: 0,
            processed: 0,
            last_completed: 0,
            next: 0,
            at_chain_start: true,
            in_flight: None,
            stop: None,
            failed: false,
            stall: None,
            position: 0,
            events: Events { interrupt: false, errors: ChanErr::empty(), reset: false },
        }
    }

    // Registers.

    /// CHANCTRL, with its side effect: test and set of `CHANNEL_IN_USE`.
    pub(crate) fn read_control(&mut self) -> u16 {
        let mut value = self.control;
        value.set(ChanCtrl::INT_REARM, self.interrupt_spent);
        self.control |= ChanCtrl::CHANNEL_IN_USE;
        value.bits()
    }

    pub(crate) fn write_control(&mut self, value: u16) {
        let value = ChanCtrl::from_bits_truncate(value);
        if value.contains(ChanCtrl::INT_REARM) {
            self.interrupt_spent = false;
        }
        self.control = value - ChanCtrl::INT_REARM;
    }

    /// CHANCMD: only a reset that has not ended shows.
    pub(crate) fn command(&self) -> u8 {
        let resetting = self.stop >= Some(Stop::Reset);
        if resetting { ChanCmd::RESET } else { ChanCmd::empty() }.bits()
    }

    pub(crate) fn write_command(&mut self, value: u8) {
        let running = matches!(self.state, State::Active | State::Done);
        match ChanCmd::from_bits_retain(value) {
            command if command.is_empty() => {}
            ChanCmd::RESET => self.stop_with(Stop::Reset),
            ChanCmd::ABORT if running => self.stop_with(Stop::Abort),
            ChanCmd::SUSPEND if running => self.stop_with(Stop::Suspend),
            ChanCmd::RESUME if self.state == State::Suspended => self.run(),
            ChanCmd::ABORT | ChanCmd::SUSPEND | ChanCmd::RESUME => {}
            _ => {
                self.note(ChanErr::CHANCMD);
                if !self.error_mask.contains(ChanErr::CHANCMD) {
                    self.stop_with(Stop::Abort);
                    if self.control.contains(ChanCtrl::ERR_INT_EN) {
                        self.raise_interrupt();
                    }
                }
            }
        }
    }

    pub(crate) const fn dma_count(&self) -> u16 {
        self.dma_count
    }

    /// The doorbell. A halted channel has no chain to count on, and ignores it.
    pub(crate) fn write_dma_count(&mut self, value: u16) {
        match self.state {
            State::Halted => {}
            State::Suspended => self.dma_count = value,
            State::Active | State::Done | State::Armed => {
                self.dma_count = value;
                if self.pending() > 0 {
                    self.state = State::Active;
                }
            }
        }
    }

    pub(crate) const fn status(&self) -> u64 {
        self.last_completed | self.state as u64
    }

    pub(crate) const fn chain_address(&self) -> u64 {
        self.chain_address
    }

    /// CHAINADDR as it is after a write; `complete` if the write reached its high half.
    ///
    /// Taken where no chain runs: while HALTED (after a RESET, and with no errors left to be
    /// cleared), SUSPENDED or ARMED. The count then begins at 0 again.
    pub(crate) fn write_chain_address(&mut self, value: u64, complete: bool) {
        self.chain_address = value;
        let unmasked = self.errors - self.error_mask;
        let ready = match self.state {
            State::Halted => !self.failed && unmasked.is_empty(),
            State::Suspended | State::Armed => true,
            State::Active | State::Done => false,
        };
        if complete && ready {
            self.state = State::Armed;
            self.next = value;
            self.at_chain_start = true;
            self.dma_count = 0;
            self.processed = 0;
            self.last_completed = 0;
        }
    }

    pub(crate) const fn completion_address(&self) -> u64 {
        self.completion_address
    }

    pub(crate) const fn write_completion_address(&mut self, value: u64) {
        self.completion_address = value;
    }

    pub(crate) const fn current_descriptor(&self) -> u64 {
        self.current
    }

    pub(crate) const fn errors(&self) -> u32 {
        self.errors.bits()
    }

    /// CHANERR is write 1 to clear.
    pub(crate) fn clear_errors(&mut self, value: u32) {
        self.errors -= ChanErr::from_bits_truncate(value);
    }

    /// What has happened since the last call.
    pub(crate) fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// Function level reset.
    pub(crate) fn power_up(&mut self) {
        self.stop_with(Stop::PowerUp);
    }

    /// Whether a descriptor is between `fetch` and `retire`.
    pub(crate) const fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    // Descriptors.

    /// Whether [`fetch`](Self::fetch) would look at a descriptor.
    pub(crate) fn is_ready(&self) -> bool {
        self.state == State::Active && self.in_flight.is_none() && self.stall.is_none()
    }

    /// Takes the next descriptor in hand. `None` if there is nothing to move: no descriptor, or one
    /// that was refused.
    pub(crate) fn fetch(
        &mut self,
        memory: &mut impl Memory,
        xfercap: u64,
        capability: DmaCapability,
        fault: Option<Fault>,
    ) -> Option<Operation> {
        if !self.is_ready() {
            return None;
        }
        self.position += 1;
        self.current = self.next;
        match fault {
            None | Some(Fault::LostCompletion) => {}
            Some(Fault::Error(bits)) => {
                self.halt(bits, memory);
                return None;
            }
            Some(Fault::Halt) => {
                self.halt(ChanErr::empty(), memory);
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
        }
        let descriptor = match self.read_descriptor(memory, xfercap, capability) {
            Ok(descriptor) => descriptor,
            Err(bits) => {
                // Nothing is known of what follows, so masking does not help here.
                self.halt(bits, memory);
                return None;
            }
        };
        self.in_flight = Some(InFlight {
            control: descriptor.control,
            next: descriptor.next,
            write_completion: fault != Some(Fault::LostCompletion),
        });
        Some(descriptor.operation)
    }

    fn read_descriptor(
        &self,
        memory: &mut impl Memory,
        xfercap: u64,
        capability: DmaCapability,
    ) -> Result<Descriptor, ChanErr> {
        let bad_address =
            if self.at_chain_start { ChanErr::CHAIN_ADDRESS } else { ChanErr::NEXT_ADDRESS };
        if !self.next.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(bad_address);
        }
        let mut words = [0; DESCRIPTOR_WORDS];
        memory.read(self.next, &mut words).map_err(|error| match error {
            crate::MemoryError::Address => bad_address,
            crate::MemoryError::Data => ChanErr::DESCRIPTOR,
        })?;
        Descriptor::decode(words, xfercap, capability)
    }

    /// Ends the descriptor in hand. Ignored if there is none.
    pub(crate) fn retire(&mut self, result: Result<(), MoveError>, memory: &mut impl Memory) {
        let Some(InFlight { control, next, write_completion }) = self.in_flight.take() else {
            return;
        };
        if let Some(reset @ (Stop::Reset | Stop::PowerUp)) = self.stop {
            self.stop_with(reset);
            return;
        }
        if let Err(error) = result {
            let bits = ChanErr::from(error);
            if !self.error_mask.contains(bits) {
                self.halt(bits, memory);
                return;
            }
            self.note(bits);
        }
        self.last_completed = self.current;
        self.next = next;
        self.at_chain_start = false;
        self.processed = self.processed.wrapping_add(1);
        self.run();
        if let Some(stop) = self.stop {
            self.stop_with(stop);
        }
        if control.contains(Control::COMPL_WRITE) && write_completion {
            self.write_completion_word(memory);
        }
        if control.contains(Control::INT_EN) {
            self.raise_interrupt();
        }
    }

    const fn pending(&self) -> u16 {
        self.dma_count.wrapping_sub(self.processed)
    }

    const fn run(&mut self) {
        self.state = if self.pending() > 0 { State::Active } else { State::Done };
    }

    /// Stops now, or when the descriptor in flight has ended.
    fn stop_with(&mut self, stop: Stop) {
        let stop = self.stop.map_or(stop, |earlier| earlier.max(stop));
        let blocked = match self.stall {
            None => self.in_flight.is_some(),
            Some(Stall::UntilReset) => stop < Stop::Reset,
            Some(Stall::ForEver) => stop < Stop::PowerUp,
        };
        if blocked {
            self.stop = Some(stop);
            return;
        }
        self.stop = None;
        match stop {
            Stop::Suspend => self.state = State::Suspended,
            Stop::Abort => self.fail(),
            Stop::Reset => self.reset(),
            Stop::PowerUp => {
                let Self { position, events, .. } = *self;
                *self = Self { position, events, ..Self::new() };
            }
        }
    }

    /// The state after RESET: as at power-up, but CHANERR stays until it is written, the owner stays
    /// the owner, and what only people look at (CDAR) stays too.
    fn reset(&mut self) {
        let Self { control, current, errors, position, events, .. } = *self;
        *self = Self {
            control: control & ChanCtrl::CHANNEL_IN_USE,
            current,
            errors,
            position,
            events: Events { reset: true, ..events },
            ..Self::new()
        };
    }

    fn note(&mut self, errors: ChanErr) {
        self.errors |= errors;
        self.events.errors |= errors;
    }

    /// HALTED, until RESET.
    const fn fail(&mut self) {
        self.state = State::Halted;
        self.stop = None;
        self.failed = true;
    }

    /// Stops at the current descriptor, which is not completed.
    fn halt(&mut self, bits: ChanErr, memory: &mut impl Memory) {
        self.note(bits);
        self.fail();
        if self.control.contains(ChanCtrl::ERR_COMPLETION_EN) {
            self.write_completion_word(memory);
        }
        if self.control.contains(ChanCtrl::ERR_INT_EN) {
            self.raise_interrupt();
        }
    }

    fn write_completion_word(&mut self, memory: &mut impl Memory) {
        let address = self.completion_address;
        let aligned = address.is_multiple_of(8);
        if !aligned || memory.write(address, self.status()).is_err() {
            self.note(ChanErr::COMPLETION_ADDRESS);
            if !self.error_mask.contains(ChanErr::COMPLETION_ADDRESS) {
                self.fail();
                if self.control.contains(ChanCtrl::ERR_INT_EN) {
                    self.raise_interrupt();
                }
            }
        }
    }

    /// One interrupt per re-arming; further ones are not remembered.
    const fn raise_interrupt(&mut self) {
        if !self.interrupt_spent {
            self.interrupt_spent = true;
            self.events.interrupt = true;
        }
    }
}
