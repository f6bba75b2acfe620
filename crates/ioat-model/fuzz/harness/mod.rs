//! A driver made of bytes, and what must hold of the device whatever it does:
//!
//! - It writes to memory only what a descriptor in hand names, and completion words where CHANCMP
//!   says (and the results of checks into their descriptors).
//! - A channel goes from state to state as the table in the documentation has it.
//! - Each descriptor that is completed was in hand, and is completed once. None is fetched while
//!   RESET has not ended.
//! - A device that has vanished reads as all ones and writes nothing.
//! - Interrupts leave by vectors that exist; time that has been waited for has no deadline left.

mod input;
mod memory;
mod oracle;

use std::time::Duration;

use ioat_model::{
    Config, InterruptStyle, Mismatch, Model, MoveError, Operation, Version,
    config_space::CONFIG_SIZE,
    descriptor::{
        OP_COPY, OP_FILL, OP_PQ, OP_PQ_16S, OP_PQ_UPDATE, OP_PQ_VAL, OP_PQ_VAL_16S, OP_XOR,
        OP_XOR_VAL,
    },
    registers::{BAR_SIZE, CHANNEL_BLOCK, Width, channel, channel_v1},
};

use self::{
    input::Input,
    memory::{Access, Guest, PAGE, PAGES},
    oracle::{Action, Watched},
};

const OPS: [u8; 9] = [
    OP_COPY,
    OP_FILL,
    OP_XOR,
    OP_XOR_VAL,
    OP_PQ,
    OP_PQ_VAL,
    OP_PQ_UPDATE,
    OP_PQ_16S,
    OP_PQ_VAL_16S,
];

/// What a driver writes most.
const REGISTERS: [(u64, Width); 11] = [
    (channel::CHAINADDR, Width::W64),
    (channel::DMACOUNT, Width::W16),
    (channel::CHANCMD, Width::W8),
    (channel::CHANCMP, Width::W64),
    (channel::CHANCTRL, Width::W16),
    (channel::CHANERR, Width::W32),
    (channel::CHANERRMASK, Width::W32),
    (channel_v1::CHANCMD, Width::W8),
    (channel_v1::CHAINADDR, Width::W32),
    (channel_v1::CHAINADDR + 4, Width::W32),
    (channel::CHAINADDR + 4, Width::W32),
];

/// The device, and what is known of it.
struct Watch {
    model: Model,
    version: Version,
    guest: Guest,
    channels: Vec<Watched>,
    /// Fetched, and not yet retired.
    outstanding: Vec<(usize, Operation)>,
    now: Duration,
}

/// Lets the driver that the bytes describe loose on a device.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let base = input.choose(&[0x10_0000, 0, 0xffff_8000, u64::MAX - 0xffff]);
    let accesses = [Access::ReadWrite, Access::ReadOnly, Access::None, Access::Broken];
    let access = match input.byte() % 4 {
        0 => std::array::from_fn(|_| input.choose(&accesses)),
        _ => [Access::ReadWrite; PAGES],
    };
    let config = input.config();
    let Config { version, .. } = config;
    let mut model = Model::new(config);
    if input.byte() != 0 {
        model.enable();
    }
    let channels = (0..model.channels()).map(|_| Watched::new()).collect();
    let guest = Guest::new(base, access);
    let mut watch =
        Watch { model, version, guest, channels, outstanding: Vec::new(), now: Duration::ZERO };
    while !input.is_empty() {
        watch.act(&mut input);
    }
}

impl Watch {
    fn act(&mut self, input: &mut Input<'_>) {
        let base = self.guest.base;
        match input.byte() {
            0..48 => {
                let channel = input.byte() as usize % self.channels.len();
                let (register, width) = input.choose(&REGISTERS);
                let value = match register {
                    channel::CHANCMD | channel_v1::CHANCMD => {
                        input.choose(&[0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x03, 0x80])
                    }
                    channel::CHAINADDR | channel::CHANCMP => input.address(base),
                    channel::DMACOUNT => input.number::<1>(),
                    _ => input.value(base),
                };
                self.write(CHANNEL_BLOCK * (channel as u64 + 1) + register, width, value);
            }
            48..64 => {
                let (offset, width) = (input.number::<2>() % (BAR_SIZE + 64), input.width());
                let value = input.value(base);
                self.write(offset, width, value);
            }
            64..80 => {
                let (offset, width) = (input.number::<2>() % (BAR_SIZE + 64), input.width());
                let value = self.model.mmio_read(offset, width);
                assert!(!self.model.is_gone() || value == u64::MAX);
                self.check(None, Action::Other);
            }
            80..136 => self.descriptor(input),
            136..184 => self.fetch(),
            184..224 => self.retire(input),
            224..236 => self.pass(input),
            236..244 => {
                let offset = input.number::<2>() % (CONFIG_SIZE + 16);
                let bytes = input.number::<4>().to_le_bytes();
                let len = input.byte() as usize % 5;
                self.model.config_write(offset, &bytes[..len]);
                self.check(None, Action::Configure);
            }
            244..250 => {
                let address = input.address(base);
                let bytes = input.number::<8>().to_le_bytes();
                self.guest.poke(address, &bytes);
            }
            250 => {
                self.model.reset();
                self.check(None, Action::Configure);
            }
            251 => {
                let page = input.byte() as usize % PAGES;
                self.guest.access[page] = input.choose(&[
                    Access::ReadWrite,
                    Access::ReadOnly,
                    Access::None,
                    Access::Broken,
                ]);
            }
            252 if input.byte() == 255 => self.model.vanish(),
            _ => self.model.enable(),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.model.mmio_write(offset, width, value);
        match (offset / CHANNEL_BLOCK).checked_sub(1) {
            None => self.check(None, Action::Other),
            Some(channel) => {
                let action = Action::Write(offset % CHANNEL_BLOCK, width, value);
                self.check(Some(channel as usize), action);
            }
        }
        assert!(self.guest.take_writes().is_empty(), "a register write writes no memory");
    }

    /// Writes a descriptor that makes sense in parts.
    fn descriptor(&mut self, input: &mut Input<'_>) {
        let base = self.guest.base;
        let slot = input.number::<2>() % (PAGES as u64 * PAGE / 64);
        let at = base.wrapping_add(slot * 64);
        let op = if input.byte() < 240 { input.choose(&OPS) } else { input.byte() };
        let size = match input.byte() % 4 {
            0 => input.number::<1>(),
            1 | 2 => input.number::<2>(),
            _ => input.number::<4>(),
        };
        let control = match input.byte() % 8 {
            0 => input.number::<3>(),
            1..4 => 0x09 | u64::from(input.byte()) & 0xe0,
            _ => u64::from(input.byte()) | 0x08,
        };
        let mut words = [0; 8];
        words[0] = size | control << 32 | u64::from(op) << 56;
        for (index, word) in words.iter_mut().enumerate().skip(1) {
            *word = match index {
                3 if input.byte() < 224 => at.wrapping_add(64),
                _ => input.address(base),
            };
        }
        for (index, word) in words.iter().enumerate() {
            self.guest.poke(at.wrapping_add(index as u64 * 8), &word.to_le_bytes());
        }
    }

    fn fetch(&mut self) {
        self.guest.reads.clear();
        let allowed = self.completion_words();
        let fetched = self.model.fetch(&mut self.guest);
        for (address, len) in self.guest.take_writes() {
            assert!(allowed.contains(&address) && len == 8, "{address:#x} is written by a fetch");
        }
        if let Some((channel, operation)) = fetched {
            let block = CHANNEL_BLOCK * (channel as u64 + 1);
            let command = match self.version {
                Version::V1_2 => channel_v1::CHANCMD,
                _ => channel::CHANCMD,
            };
            let resetting = self.model.mmio_read(block + command, Width::W8);
            assert_eq!(resetting, 0, "a channel that is being reset fetches");
            let current = self.model.mmio_read(block + channel::CDAR, Width::W64);
            // The last such read: another channel may have been refused there before, and have
            // written its completion word over it.
            let mut reads = self.guest.reads.iter().rev();
            let read = reads.find(|(address, words)| *address == current && words.len() == 8);
            let (address, words) = read.expect("a descriptor was read where CDAR says");
            self.channels[channel].take(*address, words.clone());
            assert!(self.outstanding.iter().all(|(other, _)| *other != channel));
            self.outstanding.push((channel, operation));
        }
        self.check(None, Action::Fetch);
    }

    fn retire(&mut self, input: &mut Input<'_>) {
        if self.outstanding.is_empty() {
            // A shell that is confused.
            let channel = input.byte() as usize;
            self.model.retire(channel, Ok(Mismatch::all()), &mut self.guest);
            self.check(None, Action::Other);
            return;
        }
        let index = input.byte() as usize % self.outstanding.len();
        let (channel, operation) = self.outstanding.swap_remove(index);
        // If the channel was reset meanwhile, it is the shell that still moves bytes: RESET has not
        // ended then.
        let words = self.channels[channel].in_hand.clone();
        let performed = match input.byte() {
            250..=255 => Err(MoveError::Source(ioat_model::MemoryError::Data)),
            _ => operation.perform(&mut self.guest),
        };
        for (address, len) in self.guest.take_writes() {
            let Some((_, words)) = &words else { continue };
            assert!(oracle::may_write(words, address, len), "{address:#x} + {len} by {words:x?}");
        }
        let mut allowed = self.completion_words();
        self.model.retire(channel, performed, &mut self.guest);
        // The result of a check.
        allowed.extend(words.iter().map(|(address, _)| *address));
        for (address, len) in self.guest.take_writes() {
            assert!(allowed.contains(&address) && len == 8, "{address:#x} is written by a retire");
        }
        self.check(Some(channel), Action::End);
    }

    fn pass(&mut self, input: &mut Input<'_>) {
        self.now = self.now.saturating_add(input.time());
        let mut allowed = self.completion_words();
        allowed
            .extend(self.channels.iter().filter_map(|channel| Some(channel.in_hand.as_ref()?.0)));
        self.model.set_time(self.now);
        self.model.advance(&mut self.guest);
        for (address, len) in self.guest.take_writes() {
            assert!(allowed.contains(&address) && len == 8, "{address:#x} is written by time");
        }
        let now = self.now;
        assert!(self.model.next_deadline().is_none_or(|deadline| deadline > now), "done");
        self.check(None, Action::End);
    }

    /// Where completion words may go.
    fn completion_words(&mut self) -> Vec<u64> {
        if self.model.is_gone() {
            Vec::new()
        } else {
            oracle::completion_addresses(&mut self.model)
        }
    }

    /// Looks at all channels. The action meant one of them, or (`None`) all.
    fn check(&mut self, meant: Option<usize>, action: Action) {
        let count = self.channels.len();
        let sent = self.model.take_interrupts();
        assert!(sent < 1 << count, "vectors that do not exist: {sent:#x}");
        if self.model.config_space().interrupt_style() != InterruptStyle::Intx {
            assert!(!self.model.intx());
        }
        if self.model.is_gone() {
            assert!(!self.model.intx());
            assert!(self.model.next_deadline().is_none());
            return;
        }
        let statuses = oracle::statuses(&mut self.model, self.version);
        for (index, status) in statuses.into_iter().enumerate() {
            let applies = meant.is_none_or(|meant| meant == index);
            let action = if applies { action } else { Action::Other };
            self.channels[index].check(status, self.version, action);
        }
    }
}
