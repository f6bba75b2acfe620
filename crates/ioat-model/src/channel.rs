//! One channel: its registers, and its states.
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
//! | what | HALTED | ARMED | ACTIVE | DONE | SUSPENDED |
//! | --- | --- | --- | --- | --- | --- |
//! | CHAINADDR, high half | ARMED (1) | ARMED | - | - | ARMED |
//! | DMACOUNT | - | ACTIVE (2) | ACTIVE | ACTIVE (2) | counted |
//! | a descriptor ends | | | ACTIVE, DONE or HALTED | | |
//! | SUSPEND | - | - | SUSPENDED (3) | SUSPENDED | - |
//! | RESUME | - | - | - | - | ACTIVE or DONE (2) |
//! | ABORT | - | - | HALTED (3) | HALTED | - |
//! | RESET | HALTED | HALTED | HALTED (3) | HALTED | HALTED |
//! | a command that does not exist, or two at once | HALTED (4) | HALTED (4) | HALTED (3, 4) | HALTED (4) | HALTED (4) |
//!
//! `-`: ignored. (1) If CHANERR has no unmasked bit. After an error or ABORT also only once the
//! channel was reset; except after a failed check of XOR or P+Q, which Linux goes on from without a
//! reset. (2) If that leaves descriptors to process. (3) When the descriptor in hand has ended. (4)
//! With CHANERR bit 5, unless that is masked.
//!
//! A driver that waits for SUSPENDED on a channel that never ran waits in vain.
//!
//! Version 1.2 has no ARMED and no DMACOUNT. START in HALTED (1) or SUSPENDED begins at CHAINADDR and
//! makes the channel ACTIVE; a descriptor whose `next` is 0 ends the chain, and the channel is DONE;
//! APPEND in ACTIVE, DONE or SUSPENDED makes it look at that `next` again.
//!
//! RESET keeps CHANERR, CHANERRMASK (Linux writes it once, before the channel's first reset) and who
//! has the channel; it arms the interrupt (Linux does not do so after the resets of its watchdog).

mod work;

use std::time::Duration;

use crate::{
    descriptor::{Control, Performed},
    faults::Fault,
    layout::{ChannelRegister, Part},
    registers::{
        CHANSTS_SOFT_ERROR, CHANSTS_UNAFFILIATED_ERROR, ChanCmd, ChanCtrl, ChanErr, DMA_COMP_V1,
        DMA_COMP_V2, DmaCapability,
    },
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

/// A descriptor between `fetch` and its end.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    control: Control,
    next: u64,
    slots: u16,
    write_back: Option<u32>,
    fault: Option<Fault>,
    /// Not to end before.
    ends: Option<Duration>,
    /// The shell has retired it, but it is too early.
    performed: Option<Performed>,
}

/// Why a channel makes no progress though it is ACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    UntilReset,
    ForEver,
}

/// What a channel must know of its device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// Chains end with a next address of 0 and grow with APPEND; there is no DMACOUNT.
    pub(crate) chains: bool,
    pub(crate) xfercap: u64,
    pub(crate) capability: DmaCapability,
    /// INTRDELAY.
    pub(crate) interrupt_delay: Duration,
    /// The device may read and write memory.
    pub(crate) bus_master: bool,
    /// The time.
    pub(crate) now: Duration,
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

/// What faults are ordered by. Counted since power-up, across resets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Descriptors looked at.
    pub(crate) descriptors: u64,
    /// DMACOUNT writes, and APPEND commands.
    pub(crate) doorbells: u64,
    /// RESET commands.
    pub(crate) resets: u64,
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
    error_mask: ChanErr,
    dca_control: u32,
    kept: [u32; ChannelRegister::KEPT],
    /// The high half of CHANSTS when its low half was read.
    status_latch: u64,
    dma_count: u16,
    /// Descriptors ended since the chain began, modulo 2^16.
    processed: u16,
    /// APPEND: the last descriptor's `next` is to be looked at again.
    appended: bool,
    last_completed: u64,
    next: u64,
    /// `next` came from CHAINADDR, not from a descriptor.
    at_chain_start: bool,
    in_flight: Option<InFlight>,
    stop: Option<Stop>,
    /// When RESET may end.
    reset_ends: Option<Duration>,
    /// Halted by an error or ABORT: only RESET leads on.
    failed: bool,
    stall: Option<Stall>,
    /// A completion word that is late.
    late_word: Option<(Duration, u64)>,
    /// An interrupt that is late.
    late_interrupt: Option<Duration>,
    pub(crate) counts: Counts,
    events: Events,
}

impl Channel {
    pub(crate) fn new() -> Self {
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
            kept: [0; ChannelRegister::KEPT],
            status_latch: 0,
            dma_count: 0,
            processed: 0,
            appended: false,
            last_completed: 0,
            next: 0,
            at_chain_start: true,
            in_flight: None,
            stop: None,
            reset_ends: None,
            failed: false,
            stall: None,
            late_word: None,
            late_interrupt: None,
            counts: Counts::default(),
            events: Events::default(),
        }
    }

    // Registers.

    pub(crate) fn read(&mut self, register: ChannelRegister, context: &Context) -> u64 {
        match register {
            ChannelRegister::Control => self.read_control().into(),
            ChannelRegister::Compatibility => {
                if context.chains { DMA_COMP_V1 } else { DMA_COMP_V2 }.into()
            }
            ChannelRegister::Command => self.command().bits().into(),
            ChannelRegister::Count => self.dma_count.into(),
            ChannelRegister::Status(part) => self.read_status(part),
            ChannelRegister::Chain(part) => part.get(self.chain_address),
            ChannelRegister::Completion(part) => part.get(self.completion_address),
            ChannelRegister::Current(part) => part.get(self.current),
            ChannelRegister::Errors => self.errors.bits().into(),
            ChannelRegister::ErrorMask => self.error_mask.bits().into(),
            ChannelRegister::DcaControl => self.dca_control.into(),
            ChannelRegister::Kept(index) => self.kept[index].into(),
        }
    }

    pub(crate) fn write(&mut self, register: ChannelRegister, value: u64, context: &Context) {
        match register {
            ChannelRegister::Control => self.write_control(value as u16),
            ChannelRegister::Command => self.write_command(value as u8, context),
            ChannelRegister::Count => self.write_dma_count(value as u16),
            ChannelRegister::Chain(part) => {
                self.chain_address = part.set(self.chain_address, value);
                if part.has_high() && !context.chains {
                    self.arm();
                }
            }
            ChannelRegister::Completion(part) => {
                self.completion_address = part.set(self.completion_address, value);
            }
            // Write 1 to clear.
            ChannelRegister::Errors => self.errors -= ChanErr::from_bits_truncate(value as u32),
            ChannelRegister::ErrorMask => {
                self.error_mask = ChanErr::from_bits_truncate(value as u32);
            }
            ChannelRegister::DcaControl => self.dca_control = value as u32,
            ChannelRegister::Kept(index) => self.kept[index] = value as u32,
            ChannelRegister::Compatibility
            | ChannelRegister::Status(_)
            | ChannelRegister::Current(_) => {}
        }
    }

    /// CHANCTRL, with its side effect: test and set of `CHANNEL_IN_USE`.
    fn read_control(&mut self) -> u16 {
        let mut value = self.control;
        value.set(ChanCtrl::INT_REARM, self.interrupt_spent);
        self.control |= ChanCtrl::CHANNEL_IN_USE;
        value.bits()
    }

    fn write_control(&mut self, value: u16) {
        let value = ChanCtrl::from_bits_truncate(value);
        if value.contains(ChanCtrl::INT_REARM) {
            self.interrupt_spent = false;
        }
        self.control = value - ChanCtrl::INT_REARM;
    }

    /// CHANSTS; its low half latches the high one.
    const fn read_status(&mut self, part: Part) -> u64 {
        let status = self.status();
        match part {
            Part::Whole => status,
            Part::Low => {
                self.status_latch = Part::High.get(status);
                Part::Low.get(status)
            }
            Part::High => self.status_latch,
        }
    }

    const fn status(&self) -> u64 {
        let mut status = self.last_completed | self.state as u64;
        if self.errors.contains(ChanErr::SOFT) {
            status |= CHANSTS_SOFT_ERROR;
        }
        if self.errors.contains(ChanErr::UNAFFILIATED) {
            status |= CHANSTS_UNAFFILIATED_ERROR;
        }
        status
    }

    /// CHANCMD: only a reset that has not ended shows.
    fn command(&self) -> ChanCmd {
        if self.stop >= Some(Stop::Reset) { ChanCmd::RESET } else { ChanCmd::empty() }
    }

    fn write_command(&mut self, value: u8, context: &Context) {
        let running = matches!(self.state, State::Active | State::Done);
        match ChanCmd::from_bits_retain(value) {
            command if command.is_empty() => {}
            ChanCmd::RESET => self.stop_with(Stop::Reset, context),
            ChanCmd::ABORT if running => self.stop_with(Stop::Abort, context),
            ChanCmd::SUSPEND if running => self.stop_with(Stop::Suspend, context),
            ChanCmd::RESUME if self.state == State::Suspended => self.run(context),
            ChanCmd::START if context.chains => self.start(),
            ChanCmd::APPEND if context.chains => self.append(),
            ChanCmd::ABORT | ChanCmd::SUSPEND | ChanCmd::RESUME => {}
            _ => {
                self.note(ChanErr::CHANCMD);
                if !self.error_mask.contains(ChanErr::CHANCMD) {
                    self.stop_with(Stop::Abort, context);
                    if self.control.contains(ChanCtrl::ERR_INT_EN) {
                        self.raise_interrupt(context);
                    }
                }
            }
        }
    }

    /// The doorbell. A halted channel has no chain to count on, and ignores it.
    fn write_dma_count(&mut self, value: u16) {
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

    /// Whether a new chain may begin: while HALTED (after a RESET where one is needed, and with no
    /// errors left to be cleared), SUSPENDED or ARMED.
    fn takes_chain(&self) -> bool {
        let unmasked = self.errors - self.error_mask;
        match self.state {
            State::Halted => !self.failed && unmasked.is_empty() && self.stop.is_none(),
            State::Suspended | State::Armed => self.stop.is_none(),
            State::Active | State::Done => false,
        }
    }

    /// Takes CHAINADDR. The count begins at 0 again.
    fn arm(&mut self) {
        if !self.takes_chain() {
            return;
        }
        self.state = State::Armed;
        self.next = self.chain_address;
        self.at_chain_start = true;
        self.appended = false;
        self.dma_count = 0;
        self.processed = 0;
        self.last_completed = 0;
    }

    /// START, version 1.2.
    fn start(&mut self) {
        if self.takes_chain() {
            self.arm();
            self.state = State::Active;
        }
    }

    /// APPEND, version 1.2.
    fn append(&mut self) {
        if matches!(self.state, State::Active | State::Done | State::Suspended) {
            self.appended = true;
            if self.state == State::Done {
                self.state = State::Active;
            }
        }
    }

    /// What has happened since the last call.
    pub(crate) fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// Whether a descriptor is being worked on.
    pub(crate) const fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    // States.

    const fn pending(&self) -> u16 {
        self.dma_count.wrapping_sub(self.processed)
    }

    /// ACTIVE, or DONE if there is nothing to do.
    const fn run(&mut self, context: &Context) {
        let more = if context.chains {
            self.next != 0 || self.appended || self.at_chain_start
        } else {
            self.pending() > 0
        };
        self.state = if more { State::Active } else { State::Done };
    }

    /// Function level reset.
    pub(crate) fn power_up(&mut self, context: &Context) {
        self.stop_with(Stop::PowerUp, context);
    }

    /// Makes a RESET that comes next take this long.
    pub(crate) fn slow_reset(&mut self, duration: Duration, context: &Context) {
        self.reset_ends = Some(context.now.saturating_add(duration));
    }

    /// Ends a RESET whose time has come.
    pub(crate) fn end_reset(&mut self, context: &Context) {
        if self.stop == Some(Stop::Reset) {
            self.stop_with(Stop::Reset, context);
        }
    }

    /// Whether RESET has been commanded and has not ended.
    pub(crate) fn is_resetting(&self) -> bool {
        self.stop >= Some(Stop::Reset)
    }

    /// Stops now, or when the descriptor in flight has ended.
    fn stop_with(&mut self, stop: Stop, context: &Context) {
        let stop = self.stop.map_or(stop, |earlier| earlier.max(stop));
        // No byte of a descriptor that waits for its time moves any more: RESET may forget it.
        let moving = self
            .in_flight
            .is_some_and(|in_flight| in_flight.performed.is_none() || stop < Stop::Reset);
        let stalled = match self.stall {
            None => false,
            Some(Stall::UntilReset) => stop < Stop::Reset,
            Some(Stall::ForEver) => stop < Stop::PowerUp,
        };
        let slow = stop == Stop::Reset && self.reset_ends.is_some_and(|ends| context.now < ends);
        if moving || stalled || slow {
            self.stop = Some(stop);
            return;
        }
        self.stop = None;
        match stop {
            Stop::Suspend => self.state = State::Suspended,
            Stop::Abort => self.fail(),
            Stop::Reset => self.reset(),
            Stop::PowerUp => {
                let Self { counts, events, .. } = *self;
                *self = Self { counts, events, ..Self::new() };
            }
        }
    }

    /// The state after RESET: as at power-up, but for CHANERR and its mask, the owner, and what only
    /// people look at (CDAR).
    fn reset(&mut self) {
        let Self { control, current, errors, error_mask, counts, events, .. } = *self;
        *self = Self {
            control: control & ChanCtrl::CHANNEL_IN_USE,
            current,
            errors,
            error_mask,
            counts,
            events: Events { reset: true, ..events },
            ..Self::new()
        };
    }

    fn note(&mut self, errors: ChanErr) {
        self.errors |= errors;
        self.events.errors |= errors;
    }

    /// HALTED, until RESET.
    fn fail(&mut self) {
        self.state = State::Halted;
        self.stop = self.stop.filter(|stop| *stop >= Stop::Reset);
        self.failed = true;
    }

    /// One interrupt per re-arming; further ones are not remembered.
    fn raise_interrupt(&mut self, context: &Context) {
        if self.interrupt_spent {
            return;
        }
        self.interrupt_spent = true;
        let delayed = (!context.interrupt_delay.is_zero())
            .then(|| context.now.saturating_add(context.interrupt_delay));
        // It does not pass the completion word that it is about.
        let word = self.late_word.map(|(due, _)| due);
        match delayed.max(word) {
            // One that is late already comes with this one.
            Some(due) => self.late_interrupt = self.late_interrupt.max(Some(due)),
            None => self.events.interrupt = true,
        }
    }
}
