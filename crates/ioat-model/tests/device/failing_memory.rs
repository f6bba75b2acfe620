//! Memory that is there and fails, as uncorrectable errors make it.

use ioat_model::{
    Config, Memory, MemoryError, Model, MoveError, State, Version,
    descriptor::{Control, OP_COPY, OP_FILL, OP_XOR, OP_XOR_VAL},
    registers::{CHANNEL_BLOCK, ChanErr, Width, channel::*},
};

use crate::rig::Rig;

/// Where things are. Each page fails or does not.
const DESCRIPTOR: u64 = 0x1000;
const SOURCE: u64 = 0x2000;
const TARGET: u64 = 0x3000;

/// One descriptor, and a page that fails.
struct Failing {
    descriptor: [u64; 8],
    page: u64,
}

impl Failing {
    fn look(&self, address: u64) -> Result<(), MemoryError> {
        if address & !0xfff == self.page { Err(MemoryError::Data) } else { Ok(()) }
    }
}

impl Memory for Failing {
    fn read(&mut self, address: u64, words: &mut [u64]) -> Result<(), MemoryError> {
        self.look(address)?;
        words.copy_from_slice(&self.descriptor);
        Ok(())
    }

    fn write(&mut self, address: u64, _: u64) -> Result<(), MemoryError> {
        self.look(address)
    }

    fn read_bytes(&mut self, address: u64, _: &mut [u8]) -> Result<(), MemoryError> {
        self.look(address)
    }

    fn write_bytes(&mut self, address: u64, _: &[u8]) -> Result<(), MemoryError> {
        self.look(address)
    }

    fn copy(&mut self, source: u64, target: u64, _: u32) -> Result<(), MoveError> {
        self.look(source).map_err(MoveError::Source)?;
        self.look(target).map_err(MoveError::Target)
    }

    fn fill(&mut self, target: u64, _: u64, _: u32) -> Result<(), MemoryError> {
        self.look(target)
    }
}

fn errors(op: u8, page: u64) -> ChanErr {
    let mut model = Model::new(Config { version: Version::V3_2, ..Config::default() });
    model.enable();
    let head = Rig::head(op, 8, Control::COMPL_WRITE.bits());
    let descriptor = [head, SOURCE, TARGET, DESCRIPTOR, SOURCE, 0, 0, 0];
    let mut memory = Failing { descriptor, page };
    model.mmio_write(CHANNEL_BLOCK + CHAINADDR, Width::W64, DESCRIPTOR);
    model.mmio_write(CHANNEL_BLOCK + DMACOUNT, Width::W16, 1);
    if let Some((channel, operation)) = model.fetch(&mut memory) {
        let performed = operation.perform(&mut memory);
        model.retire(channel, performed, &mut memory);
    }
    let status = model.mmio_read(CHANNEL_BLOCK + CHANSTS, Width::W64);
    assert_eq!(status & 7, State::Halted as u64);
    ChanErr::from_bits_retain(model.mmio_read(CHANNEL_BLOCK + CHANERR, Width::W32) as u32)
}

#[test]
fn each_side_has_its_error() {
    for op in [OP_COPY, OP_FILL, OP_XOR, OP_XOR_VAL] {
        assert_eq!(errors(op, DESCRIPTOR), ChanErr::DESCRIPTOR);
        assert_eq!(errors(op, 0), ChanErr::COMPLETION_ADDRESS);
    }
    for op in [OP_COPY, OP_XOR, OP_XOR_VAL] {
        assert_eq!(errors(op, SOURCE), ChanErr::READ_DATA);
    }
    for op in [OP_COPY, OP_FILL, OP_XOR] {
        assert_eq!(errors(op, TARGET), ChanErr::WRITE_DATA);
    }
    assert_eq!(errors(OP_XOR_VAL, TARGET), ChanErr::READ_DATA, "it is only read");
}
