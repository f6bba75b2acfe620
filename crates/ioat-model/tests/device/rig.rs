//! A stepped device with some memory, and the few things that every driver does.

use std::sync::atomic::{AtomicU64, Ordering};

use ioat_model::{
    Config, PAGE, Stepped, Version,
    descriptor::{Control, OP_COPY, OP_FILL},
    registers::{CHANNEL_BLOCK, ChanErr, Width, channel::*, channel_v1},
};

/// Bus address of the memory.
pub(crate) const BASE: u64 = 0x10_0000;
/// Pages that are mapped; as many unmapped ones lie on each side.
pub(crate) const PAGES: usize = 16;
/// Bus address behind the mapped memory.
pub(crate) const END: u64 = BASE + PAGES as u64 * PAGE;
/// Where the completion word is.
pub(crate) const COMPLETION: u64 = BASE + 15 * PAGE;

#[repr(align(4096))]
struct Page([AtomicU64; PAGE as usize / 8]);

/// Memory that a device may be given: words, so that both sides may access it at once.
pub(crate) struct Memory {
    pages: Vec<Page>,
}

impl Memory {
    pub(crate) fn new(pages: usize) -> Self {
        let page = || Page([const { AtomicU64::new(0) }; PAGE as usize / 8]);
        Self { pages: (0..pages).map(|_| page()).collect() }
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.pages.as_ptr().cast_mut().cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len() * PAGE as usize
    }

    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "words are aligned");
        &self.pages[(offset / PAGE) as usize].0[(offset % PAGE / 8) as usize]
    }

    pub(crate) fn store(&self, offset: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            // Relaxed: the register write that follows orders it.
            self.word(offset + index as u64 * 8).store(*word, Ordering::Relaxed);
        }
    }

    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        (offset..offset + len as u64)
            .map(|at| {
                // Acquire: pairs with the device's completion write.
                self.word(at & !7).load(Ordering::Acquire).to_le_bytes()[(at & 7) as usize]
            })
            .collect()
    }

    pub(crate) fn set_bytes(&self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let word = self.word(at & !7);
            let mut old = word.load(Ordering::Relaxed).to_le_bytes();
            old[(at & 7) as usize] = *byte;
            word.store(u64::from_le_bytes(old), Ordering::Relaxed);
        }
    }
}

pub(crate) struct Rig {
    // Before the memory: dropped first, so the device never outlives what is mapped.
    pub(crate) device: Stepped,
    memory: Memory,
    version: Version,
}

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        let version = config.version;
        let device = Stepped::new(config).expect("eventfd");
        let memory = Memory::new(3 * PAGES);
        let middle = memory.pointer().wrapping_add(PAGES * PAGE as usize);
        // SAFETY: `memory` has 3 * PAGES pages and is dropped after the device. Nothing in it is
        // ever borrowed as plain data.
        unsafe { device.map(BASE, middle, PAGES * PAGE as usize) }.expect("aligned");
        Self { device, memory, version }
    }

    /// A rig whose channel 0 will find its chain at [`BASE`] and is ready for a doorbell.
    pub(crate) fn armed(config: Config) -> Self {
        let rig = Self::new(config);
        rig.enable();
        rig.chain(BASE);
        rig
    }

    /// CHANCTRL and CHANCMP as Linux writes them, and the master interrupt enable.
    pub(crate) fn enable(&self) {
        self.device.write(ioat_model::registers::INTRCTRL, Width::W8, 1);
        self.set16(CHANCTRL, 0x1d);
        self.set64(CHANCMP, COMPLETION);
    }

    /// The offset in `memory` of a bus address.
    fn offset(address: u64) -> u64 {
        address - BASE + PAGES as u64 * PAGE
    }

    pub(crate) fn store(&self, address: u64, words: &[u64]) {
        self.memory.store(Self::offset(address), words);
    }

    pub(crate) fn word(&self, address: u64) -> u64 {
        self.memory.word(Self::offset(address)).load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        self.memory.bytes(Self::offset(address), len)
    }

    pub(crate) fn set_bytes(&self, address: u64, bytes: &[u8]) {
        self.memory.set_bytes(Self::offset(address), bytes);
    }

    /// Whether all memory that is not mapped is still zero.
    pub(crate) fn guards_intact(&self) -> bool {
        let outer = PAGES as u64 * PAGE;
        let zero = |mut range: std::ops::Range<u64>| {
            range.all(|word| self.memory.word(word * 8).load(Ordering::Relaxed) == 0)
        };
        zero(0..outer / 8) && zero(2 * outer / 8..3 * outer / 8)
    }

    pub(crate) fn copy(&self, at: u64, source: u64, target: u64, len: u32, control: Control) {
        self.descriptor(at, OP_COPY, len, control, [source, target, at + 64]);
    }

    pub(crate) fn fill(&self, at: u64, pattern: u64, target: u64, len: u32, control: Control) {
        self.descriptor(at, OP_FILL, len, control, [pattern, target, at + 64]);
    }

    pub(crate) fn null(&self, at: u64, control: Control) {
        self.copy(at, 0, 0, 1, control | Control::NULL);
    }

    pub(crate) fn descriptor(
        &self,
        at: u64,
        op: u8,
        len: u32,
        control: Control,
        [second, target, next]: [u64; 3],
    ) {
        let head = u64::from(len) | u64::from(control.bits()) << 32 | u64::from(op) << 56;
        self.store(at, &[head, second, target, next, 0, 0, 0, 0]);
    }

    pub(crate) fn doorbell(&self, count: u16) {
        self.set16(DMACOUNT, count);
    }

    /// The first word of a descriptor.
    pub(crate) fn head(op: u8, len: u32, control: u32) -> u64 {
        u64::from(len) | u64::from(control) << 32 | u64::from(op) << 56
    }

    /// Lets the device work until it has nothing to do; how many descriptors it looked at.
    pub(crate) fn run(&self) -> usize {
        std::iter::from_fn(|| self.device.step().then_some(())).count()
    }

    pub(crate) fn get(&self, register: u64, width: Width) -> u64 {
        self.device.read(CHANNEL_BLOCK + register, width)
    }

    pub(crate) fn set(&self, register: u64, width: Width, value: u64) {
        self.device.write(CHANNEL_BLOCK + register, width, value);
    }

    pub(crate) fn set16(&self, register: u64, value: u16) {
        self.set(register, Width::W16, value.into());
    }

    pub(crate) fn set64(&self, register: u64, value: u64) {
        self.set(register, Width::W32, value & 0xffff_ffff);
        self.set(register + 4, Width::W32, value >> 32);
    }

    /// The register of this version: 1.2 has these three in other places.
    fn place(&self, register: u64) -> u64 {
        match (self.version, register) {
            (Version::V1_2, CHAINADDR) => channel_v1::CHAINADDR,
            (Version::V1_2, CHANCMD) => channel_v1::CHANCMD,
            (Version::V1_2, CHANSTS) => channel_v1::CHANSTS,
            _ => register,
        }
    }

    /// Writes CHAINADDR.
    pub(crate) fn chain(&self, address: u64) {
        self.set64(self.place(CHAINADDR), address);
    }

    pub(crate) fn command(&self, command: u8) {
        self.set(self.place(CHANCMD), Width::W8, command.into());
    }

    pub(crate) fn status(&self) -> u64 {
        self.get(self.place(CHANSTS), Width::W64)
    }

    /// CHANSTS bits 2:0.
    pub(crate) fn state(&self) -> u64 {
        self.status() & 7
    }

    pub(crate) fn errors(&self) -> ChanErr {
        ChanErr::from_bits_retain(self.get(CHANERR, Width::W32) as u32)
    }

    /// Interrupts of channel 0 since the last call.
    pub(crate) fn interrupts(&self) -> u64 {
        self.sent(0)
    }

    /// What was sent by a vector since the last call.
    pub(crate) fn sent(&self, vector: usize) -> u64 {
        let mut count = [0; 8];
        let fd = self.device.interrupt(vector).expect("a vector");
        match rustix::io::read(fd, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }
}
